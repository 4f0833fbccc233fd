package cost

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Row is the figures of one client at one load, of all rounds together.
type Row struct {
	Name string
	Figures
}

// Add adds the figures of another round.
func (r *Row) Add(f *Figures) {
	r.Window += f.Window
	r.Polls += f.Polls
	r.Client += f.Client
	r.Server += f.Server
	r.Switches += f.Switches
	r.RSS = max(r.RSS, f.RSS)
	r.Warm = max(r.Warm, f.Warm)
	r.Delays = append(r.Delays, f.Delays...)
}

// perPoll returns microseconds.
func (r *Row) perPoll(d time.Duration) float64 {
	return float64(d) / float64(time.Microsecond) / float64(max(r.Polls, 1))
}

// delay returns a quantile of the delays in milliseconds.
func (r *Row) delay(q float64) float64 {
	if len(r.Delays) == 0 {
		return 0
	}
	slices.Sort(r.Delays)
	return float64(r.Delays[int(q*float64(len(r.Delays)-1))]) / float64(time.Millisecond)
}

// SameMessages is the name of the bare loop that publishes the bridge's messages. The
// server's CPU time is compared with the one that it has beside this loop.
const SameMessages = "bare loop, same messages"

// Table returns the rows of a load as a table in Markdown. Ratios are to the first
// row, and those of the server to that of SameMessages if there is one.
func Table(l Load, rows []Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n\n", l)
	b.WriteString("| client | polls/s | CPU us/poll | ratio | core | switches/s | server us/poll | ratio | RSS MB | delay median ms | p99 ms |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	plain := &rows[0]
	for i := range rows {
		if rows[i].Name == SameMessages {
			plain = &rows[i]
		}
	}
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %s | %.2f%% | %.0f | %.0f | %s | %d | %.1f | %.1f |\n", r.Name,
			float64(r.Polls)/r.Window.Seconds(), r.perPoll(r.Client), ratio(r.perPoll(r.Client), rows[0].perPoll(rows[0].Client)),
			100*r.Client.Seconds()/r.Window.Seconds(), float64(r.Switches)/r.Window.Seconds(),
			r.perPoll(r.Server), ratio(r.perPoll(r.Server), plain.perPoll(plain.Server)), r.RSS>>20, r.delay(0.5), r.delay(0.99))
	}
	return b.String()
}

// ratio returns how many times b is in a.
func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
