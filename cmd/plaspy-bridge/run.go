package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge"
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
	cfg, warnings, err := bridge.Load()
	if err != nil {
		return err
	}
	log := newLogger(cfg, w)
	warn(log, warnings)
	b, err := bridge.New(ctx, cfg, number(), log)
	if err != nil {
		return err
	}
	return b.Run(ctx)
}
