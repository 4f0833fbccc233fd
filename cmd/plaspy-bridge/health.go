package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
)

func healthCommand() *cobra.Command {
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running bridge whether it is ready",
		Long: "Asks the bridge on BRIDGE_HTTP_ADDR whether it is ready, or with --live whether it lives,\n" +
			"and exits 0 for yes and 1 for no. For container health checks, in an image without a shell.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := askHealth(ctx, live); err != nil {
				return failure{err} // docker reserves status 2 of a health check
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), map[bool]string{true: "live", false: "ready"}[live])
			return err
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it lives, not whether it is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}

// askHealth needs only the address: what else is wrong is for the bridge to tell.
func askHealth(ctx context.Context, live bool) error {
	c, _, err := config.Load("PLASPY_", "NATS_", "OTEL_")
	if err != nil {
		return err
	}
	if c.HTTPAddr == "" {
		return errors.New("BRIDGE_HTTP_ADDR is set to nothing, so that the bridge has no health to ask for")
	}
	return ops.Ask(ctx, c.HTTPAddr, live)
}
