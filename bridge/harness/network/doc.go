// Package network has the parts of the network between the programs under test: connections
// to the broker that can be cut ([Link]), and a listener with connections that can be frozen
// ([Listener]).
package network
