package inspect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

// HealthCommand returns the command health.
func HealthCommand() *cobra.Command {
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running bridge whether it is ready",
		Long: "Asks the bridge on BRIDGE_HTTP_ADDR whether it is ready, or with --live whether it is alive. Exits 0 for\n" +
			"yes and 1 for no. A bridge that is ready may be degraded: it works, but the printed parts need attention.\n" +
			"For container health checks in an image without a shell.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			notes, err := askHealth(ctx, live)
			if err != nil {
				return cli.Failed(err) // docker reserves status 2 of a health check
			}
			state := map[bool]string{true: "live", false: "ready"}[live]
			if len(notes) > 0 {
				state += ", degraded\n" + strings.Join(notes, "\n")
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), state)
			return err
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it is alive instead of whether it is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}

// askHealth needs only the address; the bridge reports faults of other settings.
func askHealth(ctx context.Context, live bool) ([]string, error) {
	c, _, err := config.Load("PLASPY_", "NATS_", "OTEL_")
	if err != nil {
		return nil, err
	}
	if c.HTTPAddr == "" {
		return nil, errors.New("BRIDGE_HTTP_ADDR is set to nothing, so the bridge does not serve its health")
	}
	if err := ops.Ask(ctx, c.HTTPAddr, live); err != nil || live {
		return nil, err
	}
	r, err := ops.AskReady(ctx, c.HTTPAddr)
	return r.Notes(), err
}
