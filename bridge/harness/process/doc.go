// Package process builds the programs under test, and starts, kills, suspends and
// restarts them. A [Process] notes each run with its faults. [Build] builds the bridge
// and the NATS server.
//
// A program that a Process starts dies with this one on Linux, so that no program
// survives a test that times out. Elsewhere [Process.End] ends it. Suspending needs
// Unix, and [Process.Usage] needs Linux.
package process
