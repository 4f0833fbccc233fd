// Package natsserver runs a nats-server as a process of its own, breaks it, and reads its
// streams. A [Broker] notes when it was away, which messages it lost, and which removals
// it acknowledged. [ReadEvents] reads the events stream for package judge.
package natsserver
