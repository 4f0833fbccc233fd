package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

func simCommand() *cobra.Command {
	var addr string
	var devices, rate, usage, record uint
	var o sim.Options
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run the simulated Plaspy API alone",
		Long: "Runs the simulated Plaspy API alone until it is interrupted, and prints the environment\n" +
			"that a bridge needs to use it. On a loopback address it also serves a control interface\n" +
			"for tests under /_sim/, which causes faults and lists the answers that were sent.",
		Args: cli.All(cobra.NoArgs, func(*cobra.Command, []string) error {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return fmt.Errorf("--addr: %w, expected host:port", err)
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Devices, o.RateLimit, o.DailyUsage, o.Record = int(devices), int(rate), int(usage), int(record)
			return simulate(cmd.Context(), cmd.OutOrStdout(), addr, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "addr", "127.0.0.1:8090", "address to listen on; port 0 means a free one")
	f.UintVar(&devices, "devices", 20, "how many devices the fleet has")
	f.Uint64Var(&o.Seed, "seed", 1, "the same seed gives the same fleet")
	f.UintVar(&rate, "rate-limit", 0, "requests a minute that are answered, others get 429; 0 means no limit")
	f.UintVar(&usage, "daily-usage", 0, "usage of the account per UTC day, above it all requests get 429; 0 means no limit")
	f.StringVar(&o.UserName, "username", "sim", "user name of the account")
	f.StringVar(&o.APIKey, "api-key", "sim-key", "API key of the account")
	f.UintVar(&record, "record", 0, "answers and posts remembered per device, for /_sim/")
	return cmd
}

// simulate serves until ctx is done.
func simulate(ctx context.Context, w io.Writer, addr string, o sim.Options) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	o.Control = ops.Loopback(host)
	listener, err := sim.New(o).Listen(ctx, addr)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, instructions(listener.URL, o)); err != nil {
		_ = listener.Close()
		return fmt.Errorf("print environment: %w", err)
	}
	<-ctx.Done()
	return listener.Close()
}

// instructions returns shell commands; explanations are in shell comments.
func instructions(base string, o sim.Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The simulated Plaspy API with %d devices is at %s until Ctrl-C.\n# For a bridge in another terminal:\n", o.Devices, base)
	fmt.Fprintf(&b, "export PLASPY_BASE_URL=%s\nexport PLASPY_USERNAME=%s\nexport PLASPY_API_KEY=%s\n", quote(base), quote(o.UserName), quote(o.APIKey))
	if u, err := url.Parse(base); err == nil && !ops.Loopback(u.Hostname()) {
		b.WriteString("export PLASPY_ALLOW_HTTP=true\n")
	}
	return b.String()
}

// quote returns s quoted as one word of a POSIX shell, if it needs quotes.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
