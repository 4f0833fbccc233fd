package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/preflight"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

func checkCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what would keep the bridge from working",
		Long: "Checks the configuration, the credentials, the device list, NATS, its streams and permissions, the\n" +
			"clocks, ports and disk. Prints one line for each: ok, warn or FAIL, and what to do about it. It changes\n" +
			"nothing and may run beside the bridge. Exits 0 if no check failed, even with warnings; 1 if a check\n" +
			"failed; 2 if the configuration is wrong.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runCheck(cmd.Context(), cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write each finding as a JSON object on a line of its own")
	return cmd
}

// runCheck writes a line for each finding.
func runCheck(ctx context.Context, w io.Writer, asJSON bool) error {
	cfg, warnings, err := config.Load()
	if err != nil {
		return err
	}
	var broken error
	n := preflight.Run(ctx, cfg, warnings, "plaspy-bridge/"+number(), func(f preflight.Finding) {
		switch {
		case broken != nil:
		case asJSON:
			broken = json.NewEncoder(w).Encode(f)
		default:
			_, broken = fmt.Fprintln(w, f)
		}
	})
	switch {
	case broken != nil:
		return fmt.Errorf("write findings: %w", broken)
	case ctx.Err() != nil:
		return cli.Failed(fmt.Errorf("check was interrupted: %w", context.Cause(ctx)))
	case n.Fail > 0:
		return cli.Failed(fmt.Errorf("%d of %d checks failed", n.Fail, n.OK+n.Warn+n.Fail))
	default:
		return nil
	}
}
