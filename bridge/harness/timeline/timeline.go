// Package timeline has the spans of time and the runs of programs that a test with
// faults consists of. The packages that start and break things note them, and package
// judge compares them with the streams. It has no clock: every instant is an argument.
package timeline

import (
	"slices"
	"time"
)

// Span is the time from one instant to another, both included. It has not ended yet
// if To is zero.
type Span struct{ From, To time.Time }

// Within returns how much of the span lies in another one.
func (s Span) Within(o Span) time.Duration {
	from, to := s.From, s.To
	if from.Before(o.From) {
		from = o.From
	}
	if to.IsZero() || to.After(o.To) {
		to = o.To
	}
	return max(0, to.Sub(from))
}

// Covers reports whether an instant lies in the span.
func (s Span) Covers(t time.Time) bool {
	return !t.Before(s.From) && (s.To.IsZero() || !t.After(s.To))
}

// Covered reports whether an instant lies in one of the spans.
func Covered(spans []Span, t time.Time) bool {
	return slices.ContainsFunc(spans, func(s Span) bool { return s.Covers(t) })
}

// Uncovered returns how much of the time from one instant to another lies in none of
// the spans. The spans may overlap and come in any order.
func Uncovered(from, to time.Time, spans ...[]Span) time.Duration {
	all := slices.Concat(spans...)
	slices.SortFunc(all, func(a, b Span) int { return a.From.Compare(b.From) })
	window := Span{from, to}
	idle := time.Duration(0)
	for _, s := range all {
		idle += s.Within(window)
		if s.To.IsZero() || s.To.After(to) {
			break
		}
		if s.To.After(window.From) {
			window.From = s.To // do not count this part again
		}
	}
	return to.Sub(from) - idle
}

// Life is one run of a program, from its start to its end.
type Life struct {
	Span
	Killed bool   // ended by SIGKILL
	Asked  bool   // was sent SIGTERM
	Status int    // exit status, or -1 after a signal
	Pauses []Span // in which the program was suspended
	Bridge int    // of a bridge, its index in the rig
	Cuts   []Span // of a bridge, when it had no connection to the broker
	CPU    time.Duration
	RSS    int64 // peak resident memory until the last signal, in bytes, or 0 if the system does not report it
}
