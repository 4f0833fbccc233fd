// Package dlq has the command dlq: it lists and shows dead letters, puts them back
// into the inbound stream and removes them. It reads the command line and prints;
// package deadletter does the work.
package dlq
