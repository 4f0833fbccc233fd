package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the bridge until SIGINT or SIGTERM",
		Long: "Polls the Plaspy API and publishes what changed to NATS JetStream, until SIGINT or SIGTERM; then\n" +
			"finishes what is under way and exits with status 0. A second signal ends it at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runBridge(cmd.Context(), cmd.ErrOrStderr())
		},
	}
}

// runBridge runs until ctx is done. The log goes to w.
func runBridge(ctx context.Context, w io.Writer) error {
	cfg, warnings, err := config.Load()
	log := newLogger(cfg, w)
	// First of all: a name that is misspelt may be why another one is missing.
	warn(log, warnings)
	if err != nil {
		return err
	}
	tuneGC()
	b, err := bridge.New(ctx, cfg, number(), log)
	if err != nil {
		return err
	}
	return b.Run(ctx)
}

// tuneGC trades memory for time: nearly all that a poll allocates is garbage
// when it ends, and collecting it less often saves a quarter of the CPU time. The
// limit takes the trade back where the heap grows. GOGC and GOMEMLIMIT win.
func tuneGC() {
	const percent, limit = 400, 1 << 30
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}
