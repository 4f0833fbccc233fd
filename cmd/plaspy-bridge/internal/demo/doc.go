// Package demo has the command demo: a simulated fleet, a NATS server and the bridge
// in one process, and a view of the messages. The view is an ordinary subscriber. The
// demo keeps no data and connects to no other server.
package demo
