package inspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

// StatusCommand returns the command status.
func StatusCommand() *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show readiness, budget, replicas, backlog and store of a running bridge",
		Long: "Reads /readyz and /metrics of the bridge on BRIDGE_HTTP_ADDR and shows a summary on one screen.\n" +
			"Exits 0 if the bridge is ready, else 1. With --watch it refreshes the summary until interrupted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := config.Load("PLASPY_", "NATS_", "OTEL_")
			if err != nil {
				return err
			}
			if c.HTTPAddr == "" {
				return cli.Failed(errors.New("BRIDGE_HTTP_ADDR is set to nothing, so the bridge does not serve its status"))
			}
			if !watch {
				return showStatus(cmd.Context(), cmd.OutOrStdout(), c.HTTPAddr)
			}
			return watchStatus(cmd.Context(), cmd.OutOrStdout(), c.HTTPAddr, every)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "refresh the status until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "with --watch: time between refreshes")
	return cmd
}

// watchStatus shows the status until ctx is done.
func watchStatus(ctx context.Context, w io.Writer, addr string, every time.Duration) error {
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	for {
		if cli.IsTerminal(w) {
			_, _ = io.WriteString(w, "\x1b[H\x1b[2J") // clears the screen
		}
		// Keep going if the bridge is not ready or not running: it may recover.
		if err := showStatus(ctx, w, addr); err != nil && ctx.Err() == nil {
			if _, err = fmt.Fprintln(w, err); err != nil {
				return fmt.Errorf("write status: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showStatus writes the status once.
func showStatus(ctx context.Context, w io.Writer, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ready, err := ops.AskReady(ctx, addr)
	if err != nil {
		return cli.Failed(err)
	}
	numbers, err := scrape(ctx, addr)
	if err != nil {
		return cli.Failed(err)
	}
	if err := writeStatus(w, addr, ready, numbers); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	if !ready.Ready {
		return cli.Failed(errors.New("the bridge is not ready"))
	}
	return nil
}

// series holds the samples of a scrape by name, labels included.
type series map[string]float64

// scrape reads the bridge's metrics.
func scrape(ctx context.Context, addr string) (series, error) {
	resp, err := ops.Get(ctx, addr, "/metrics", "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the bridge answers /metrics with %s", resp.Status)
	}
	all := series{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && strings.HasPrefix(line, "plaspy_bridge_") {
			if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
				all[strings.TrimPrefix(line[:i], "plaspy_bridge_")] = v
			}
		}
	}
	return all, lines.Err()
}

// sum adds up the samples of a metric that have all of the labels, each as
// name="value".
func (s series) sum(name string, labels ...string) float64 {
	total := 0.0
	for key, v := range s {
		if metric, rest, _ := strings.Cut(key, "{"); metric == name &&
			!slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			total += v
		}
	}
	return total
}

// writeStatus writes one screen.
func writeStatus(w io.Writer, addr string, r ops.Readiness, s series) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) } // Flush returns the error
	state := map[bool]string{true: "ready", false: "NOT READY"}[r.Ready]
	if r.Ready && r.Degraded {
		state = "ready, degraded"
	}
	line("plaspy-bridge %s at %s: %s\n", r.Version, addr, state)
	for _, name := range slices.Sorted(maps.Keys(r.Parts)) {
		p := r.Parts[name]
		word := "ok"
		switch {
		case !p.OK:
			word = "NOT READY"
		case p.Degraded:
			word = "degraded"
		}
		line("%s\t%s\tsince %s\t%s", name, word, p.Since.UTC().Format(time.DateTime), cli.Shown(p.Reason))
	}
	line("")
	line("budget\t%s, %.0f throttled answers since the start", budget(s.sum("api_budget_requests_per_minute")), s.sum("api_throttled_total"))
	line("replicas\t%.0f, which poll %.0f devices; this one polls %.0f", s.sum("replicas"), s.sum("devices"), s.sum("replica_devices"))
	line("polls\t%.0f changed, %.0f unchanged, %.0f failed", s.sum("polls_total", `result="changed"`),
		s.sum("polls_total", `result="unchanged"`), s.sum("polls_total", `result="error"`))
	line("backlog\t%.0f inbound messages wait, %.0f dead letters, %.0f publications in flight", s.sum("inbound_pending"), s.sum("dead_letters"), s.sum("publish_pending"))
	line("store\t%s in the streams%s", size(s.sum("store_bytes")), limit(s.sum("store_account_bytes"), s.sum("store_account_limit_bytes")))
	if dropped := s.sum("log_lines_dropped_total"); dropped > 0 {
		line("log\t%.0f lines dropped", dropped)
	}
	return out.Flush()
}

// budget describes a request budget; infinity means no limit.
func budget(perMinute float64) string {
	if math.IsInf(perMinute, 1) {
		return "no limit"
	}
	return fmt.Sprintf("%.0f requests a minute here", perMinute)
}

// limit describes the use of a store that has a limit.
func limit(used, most float64) string {
	if most <= 0 {
		return ""
	}
	return fmt.Sprintf(", %s of %s of the account used (%.0f%%)", size(used), size(most), 100*used/most)
}

// size formats a number of bytes with a unit.
func size(bytes float64) string {
	const unit = 1024
	for _, suffix := range []string{"B", "KiB", "MiB"} {
		if bytes < unit {
			return fmt.Sprintf("%.4g %s", bytes, suffix)
		}
		bytes /= unit
	}
	return fmt.Sprintf("%.4g GiB", bytes)
}
