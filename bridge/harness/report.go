package harness

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run came to; the package documentation defines the counts.
type Report struct {
	Name string
	Seed uint64
	For  time.Duration

	Bridges int
	Devices int
	Answers int // of lastLocation
	Shown   int // changes
	// Published counts location events.
	Published int

	Killed, TimedOut, Taken, Overtaken int // changes that are not in the stream, excused

	Lost, Duplicated, Reordered, Different, Stale int

	Edges, EdgesLost, EdgesWrong int
	FromHistory, Silent          int // alert events of the alert history, and of the bridge's own alert
	DeviceEvents                 int // devices whose addition was told not once, by how many too many or too few

	Faults map[string]int // injected, by kind

	Inbound InboundReport

	Busiest int // the most requests of all bridges in any 60 seconds
	Limit   int // that there may be; 0: no matter
	Ahead   int // requests that all bridges were ahead of the limit's even pace, at the worst

	// CPU is that of all lives of all bridges; RSS the most of any.
	CPU time.Duration
	RSS int64

	Problems []string // anything else that may not be: a panic, a wrong exit status
	Details  []string // the first cases of all the above, in words
}

// InboundReport is what became of the messages that the bridge was to post.
type InboundReport struct {
	Accepted int // by the inbound stream
	Posted   int // of them, at least once
	Dead     int // of them, dead-lettered
	Repeated int // posts of a message that had been posted before
	Allowed  int // how many repetitions the kills explain
	Restored int // of them, messages whose acknowledged removal the broker forgot

	Lost, Reordered int

	Results    int // result events
	Unreported int // messages that were posted and have none
}

// Err is what is wrong with the run, or nil.
func (r *Report) Err() error {
	var errs []error
	wrong := func(what string, n int) {
		if n != 0 {
			errs = append(errs, fmt.Errorf("%s %d", what, n))
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

// String is the report as a table of one line, under its heading.
func (r *Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "run\tseed\tfor\tdevices\tanswers\tshown\tpublished\tlost\tdupl\treord\tdiffer\tstale\tkilled\ttimed out\ttaken\tovertaken\tedges\tlost\twrong\tCPU\tRSS")
	_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1fs\t%dMB\n",
		r.Name, r.Seed, r.For.Round(time.Second), r.Devices, r.Answers, r.Shown, r.Published, r.Lost, r.Duplicated, r.Reordered, r.Different, r.Stale,
		r.Killed, r.TimedOut, r.Taken, r.Overtaken, r.Edges, r.EdgesLost, r.EdgesWrong, r.CPU.Seconds(), r.RSS>>20)
	_ = w.Flush() // a strings.Builder takes everything
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

// stamp is the form of an instant in details.
const stamp = "15:04:05.000"

// near describes a life, and what befell it within a lease's time of an instant.
func (l *Life) near(t time.Time, away []Span) string {
	var b strings.Builder
	fmt.Fprintf(&b, "bridge %d from %s", l.Bridge, l.From.Format(stamp))
	if !l.To.IsZero() {
		end := "stopped"
		if l.Killed {
			end = "killed"
		}
		fmt.Fprintf(&b, " to %s, %s", l.To.Format(stamp), end)
	}
	around := Span{t.Add(-3 * inboundLease), t.Add(3 * inboundLease)}
	for what, spans := range map[string][]Span{"paused": l.Pauses, "cut off": l.Cuts, "broker away": away} {
		for _, s := range spans {
			if s.within(around) > 0 || around.covers(s.From) {
				fmt.Fprintf(&b, ", %s %s to %s", what, s.From.Format(stamp), s.To.Format(stamp))
			}
		}
	}
	return b.String()
}
