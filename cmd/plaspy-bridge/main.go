// Command plaspy-bridge carries locations and alerts of GPS trackers between the
// Plaspy REST API and NATS.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	if os.Getenv("BRIDGE_PPROF") == "" {
		runtime.MemProfileRate = 0 // sampling the heap costs 1% of a busy process
	}
	os.Exit(run())
}

// run returns the process's exit status. The first signal cancels the context and
// restores the default handling, so a second one ends the process at once.
func run() int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, stop)
	return execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
}
