// Package cli has the conventions that all commands of plaspy-bridge share: the exit
// status of an error, checks of arguments, and texts that are safe for a terminal.
// It has no command itself.
package cli
