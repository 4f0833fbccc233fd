package judge

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Report is the result of a run. The package documentation defines the counts.
type Report struct {
	Name    string
	Seed    uint64
	For     time.Duration
	Bridges int
	Faults  map[string]int // injected, by kind

	Counts
	Alerts
	Load

	Inbound InboundReport

	Problems []string // all other faults, such as a panic or a wrong exit status
	Details  []string // the first cases of all counts above, in words
}

// Counts has the numbers of devices, changes and location events.
type Counts struct {
	Devices   int
	Answers   int // of lastLocation
	Shown     int // changes
	Published int // location events

	Killed, TimedOut, Taken, Overtaken int // excused changes that are not in the stream

	Lost, Duplicated, Reordered, Different, Stale int

	// DeviceEvents is the number of missing and surplus events about the addition of
	// devices.
	DeviceEvents int
}

// Alerts has the numbers of alert events.
type Alerts struct {
	Edges, EdgesLost, EdgesWrong int
	FromHistory, Silent          int // from the alert history, and from the bridge's own alert
}

// Load has the requests, CPU time and memory of the bridges.
type Load struct {
	Busiest int // the most requests of all bridges in any 60 seconds
	Limit   int // allowed requests, or 0 if there is no limit
	Ahead   int // requests by which all bridges exceeded the limit's even pace at the worst

	CPU time.Duration // of all lives of all bridges
	RSS int64         // the largest of any life
}

// InboundReport has the numbers of inbound messages and their posts.
type InboundReport struct {
	Accepted int // by the inbound stream
	Posted   int // of these, at least once
	Dead     int // of these, dead-lettered
	Repeated int // posts of a message that had been posted before
	Allowed  int // of these, explained by faults
	Restored int // of these, messages that the broker restored after their removal

	Lost, Reordered int

	Results    int // result events
	Unreported int // posted messages without a result
}

// mostDetails is the largest number of [Report.Details].
const mostDetails = 40

func (r *Report) say(format string, args ...any) {
	if len(r.Details) < mostDetails {
		r.Details = append(r.Details, fmt.Sprintf(format, args...))
	}
}

// AddInbound adds the verdict on the inbound messages.
func (r *Report) AddInbound(c InboundCase) {
	var details []string
	r.Inbound, details = Inbound(c)
	for _, d := range details {
		r.say("%s", d)
	}
}

// unprepared is how long after its start a program may not handle signals yet, so that
// SIGTERM ends it at once.
const unprepared = 250 * time.Millisecond

// AddLife adds the CPU time and memory of a life of a bridge. An end that nothing
// explains is a problem.
func (r *Report) AddLife(bridge string, l timeline.Life) {
	r.CPU += l.CPU
	r.RSS = max(r.RSS, l.RSS)
	switch {
	case l.Killed:
	case l.Asked && l.Status < 0 && l.To.Sub(l.From) < unprepared:
	case !l.Asked:
		r.Problems = append(r.Problems, fmt.Sprintf("%s ended by itself with status %d, %v after its start", bridge, l.Status, l.To.Sub(l.From)))
	case l.Status != 0:
		r.Problems = append(r.Problems, fmt.Sprintf("%s ended with status %d after SIGTERM, %v after its start", bridge, l.Status, l.To.Sub(l.From)))
	}
}

// Err returns all faults of the run, or nil.
func (r *Report) Err() error {
	var errs []error
	wrong := func(name string, n int) {
		if n != 0 {
			errs = append(errs, fmt.Errorf("%s %d", name, n))
		}
	}
	wrong("lost", r.Lost)
	wrong("duplicated", r.Duplicated)
	wrong("reordered", r.Reordered)
	wrong("byte-different", r.Different)
	wrong("stale devices", r.Stale)
	wrong("alert edges lost", r.EdgesLost)
	wrong("alert edges wrong", r.EdgesWrong)
	wrong("device additions wrong", r.DeviceEvents)
	wrong("inbound lost", r.Inbound.Lost)
	wrong("inbound reordered", r.Inbound.Reordered)
	wrong("inbound without a result", r.Inbound.Unreported)
	wrong("inbound posted again beyond what kills explain", max(0, r.Inbound.Repeated-r.Inbound.Allowed))
	if r.Published == 0 {
		errs = append(errs, errors.New("nothing was published"))
	}
	for _, p := range r.Problems {
		errs = append(errs, errors.New(p))
	}
	if len(errs) > 0 {
		for _, d := range r.Details {
			errs = append(errs, errors.New(d))
		}
	}
	return errors.Join(errs...)
}

// String returns the report as a table of one line under its heading.
func (r *Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "run\tseed\tfor\tdevices\tanswers\tshown\tpublished\tlost\tdupl\treord\tdiffer\tstale\tkilled\ttimed out\ttaken\tovertaken\tedges\tlost\twrong\tCPU\tRSS")
	_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1fs\t%dMB\n",
		r.Name, r.Seed, r.For.Round(time.Second), r.Devices, r.Answers, r.Shown, r.Published, r.Lost, r.Duplicated, r.Reordered, r.Different, r.Stale,
		r.Killed, r.TimedOut, r.Taken, r.Overtaken, r.Edges, r.EdgesLost, r.EdgesWrong, r.CPU.Seconds(), r.RSS>>20)
	_ = w.Flush() // a strings.Builder returns no error
	if in := r.Inbound; in.Accepted > 0 {
		_, _ = fmt.Fprintf(&b, "inbound: accepted %d, posted %d, dead %d, lost %d, reordered %d, repeated %d (kills explain %d, %d were back after their removal), results %d\n",
			in.Accepted, in.Posted, in.Dead, in.Lost, in.Reordered, in.Repeated, in.Allowed, in.Restored, in.Results)
	}
	if r.Limit > 0 {
		_, _ = fmt.Fprintf(&b, "budget: %d bridges sent %d requests in the busiest minute, %d are allowed; %d ahead of the even pace at the worst\n", r.Bridges, r.Busiest, r.Limit, r.Ahead)
	}
	if r.FromHistory+r.Silent > 0 {
		_, _ = fmt.Fprintf(&b, "alerts that come from no location: %d of the history, %d of silence\n", r.FromHistory, r.Silent)
	}
	if len(r.Faults) > 0 {
		_, _ = fmt.Fprintf(&b, "faults: %s\n", counted(r.Faults))
	}
	return b.String()
}

// stamp is the format of instants in details.
const stamp = "15:04:05.000"

// near describes a life and its faults within three leases of an instant.
func near(l *timeline.Life, t time.Time, away []timeline.Span) string {
	var b strings.Builder
	fmt.Fprintf(&b, "bridge %d from %s", l.Bridge, l.From.Format(stamp))
	if !l.To.IsZero() {
		end := "stopped"
		if l.Killed {
			end = "killed"
		}
		fmt.Fprintf(&b, " to %s, %s", l.To.Format(stamp), end)
	}
	around := timeline.Span{From: t.Add(-3 * inboundLease), To: t.Add(3 * inboundLease)}
	for fault, spans := range map[string][]timeline.Span{"paused": l.Pauses, "cut off": l.Cuts, "broker away": away} {
		for _, s := range spans {
			if s.Within(around) > 0 || around.Covers(s.From) {
				fmt.Fprintf(&b, ", %s %s to %s", fault, s.From.Format(stamp), s.To.Format(stamp))
			}
		}
	}
	return b.String()
}

// counted returns the entries of a map in words, in the order of their keys.
func counted(n map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, n[name]))
	}
	return strings.Join(parts, ", ")
}
