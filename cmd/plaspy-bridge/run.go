package main

import (
	"context"
	"io"
	"math/rand/v2"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/tick"
	"plaspy-bridge/cmd/plaspy-bridge/internal/logging"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the bridge until SIGINT, SIGTERM or SIGHUP",
		Long: "Polls the Plaspy API, publishes changes to NATS JetStream and posts inbound messages, until SIGINT,\n" +
			"SIGTERM or SIGHUP. Then it completes the work in flight and exits with status 0. A second signal ends it\n" +
			"at once.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A log reader that went away is no reason to die; see ops.LogQueue.
			signal.Ignore(syscall.SIGPIPE)
			return runBridge(cmd.Context(), cmd.ErrOrStderr())
		},
	}
}

// runBridge runs until ctx is done. The log goes to w.
func runBridge(ctx context.Context, w io.Writer) error {
	cfg, warnings, err := config.Load()
	level := logging.Level(cfg)
	log, queue, flush := logging.Open(cfg, level, w)
	defer flush()
	version, revision := thisBuild()
	log.Info("plaspy-bridge starting", "version", version, "revision", revision, "go", runtime.Version())
	// Before the error, because a misspelt name may explain a missing variable.
	logging.Warn(log, warnings)
	if err != nil {
		return err
	}
	tick.Share(rand.N(time.Minute))
	defer tuneRuntime(ctx)()
	b, err := bridge.New(ctx, cfg, version, log)
	if err != nil && ctx.Err() != nil {
		return nil // stopped while it started
	}
	if err != nil {
		return err
	}
	b.ControlLevel(level)
	b.Metrics().MustRegister(queue.Collector(), ops.BuildInfo(version, revision))
	return b.Run(ctx)
}
