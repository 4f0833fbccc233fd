package harness

import (
	"slices"
	"time"
)

// reconnect is how long the bridge may take to notice that the broker is back:
// its longest wait between two tries, and the reading of the state.
const reconnect = 4 * time.Second

// killed tells whether an answer was handed to a process that was killed in the
// next moment.
func (v *verdict) killed(i int) bool {
	a := v.answers[i]
	if a.Life < 0 || a.Life >= len(v.c.Lives) {
		return false
	}
	life := v.c.Lives[a.Life]
	if life.To.IsZero() || !life.Killed && !v.away(life.To) {
		return false
	}
	for _, later := range v.answers[i+1:] {
		if later.Life == a.Life {
			return false // it asked again: what it saw is stored
		}
	}
	return v.working(a.At, life.To, life.Pauses) <= v.c.Grace
}

// inFlight is how soon before a pause an answer came whose reading the pause
// may have kept off.
const inFlight = 250 * time.Millisecond

// timedOut gives the pause in which the process gave an answer up unread.
func (v *verdict) timedOut(i int) (pause Span, ok bool) {
	a := v.answers[i]
	if a.Life < 0 || a.Life >= len(v.c.Lives) {
		return Span{}, false
	}
	pauses := v.c.Lives[a.Life].Pauses
	n := slices.IndexFunc(pauses, func(p Span) bool {
		// The request was sent before the answer was given: half the timeout
		// is for that.
		return p.From.Before(a.At.Add(inFlight)) && p.To.Sub(a.At) >= v.c.Timeout/2
	})
	if n < 0 {
		return Span{}, false
	}
	return pauses[n], true
}

// unread tells whether nobody read any of the answers that showed a change. A
// pause can do that to as many as there were polls under way, and to no more.
func (v *verdict) unread(c *change) bool {
	var last Span
	if !v.all(c, func(i int) bool {
		if v.killed(i) {
			return true
		}
		pause, ok := v.timedOut(i)
		last = pause
		return ok
	}) {
		return false
	}
	v.paused[last.From]++
	return v.paused[last.From] <= v.c.Workers
}

// taken tells whether the broker lost a change after it was stored: it was
// there when the stream was last read, or had no time to get there.
func (v *verdict) taken(c *change) bool {
	return slices.ContainsFunc(v.c.Losses, func(l Loss) bool {
		switch {
		case c.first.After(l.At):
			return false
		case !l.All && c.first.Before(l.Since) && v.working(c.first, l.Since, nil) > v.c.Grace:
			return false // it was in the older copy
		case c.first.After(l.Read) || v.working(c.first, l.Read, nil) <= v.c.Grace:
			return true
		}
		return slices.ContainsFunc(l.Held, func(e Event) bool { return e.Kind == "location" && e.Device == v.device && e.key == c.key })
	})
}

// unable gives the times in which nothing could be stored.
func (v *verdict) unable() []Span {
	spans := slices.Clone(v.c.Away)
	for i := range spans {
		if !spans[i].To.IsZero() {
			spans[i].To = spans[i].To.Add(reconnect)
		}
	}
	return spans
}

func (v *verdict) away(t time.Time) bool {
	return slices.ContainsFunc(v.unable(), func(s Span) bool { return s.covers(t) })
}

// working is how much of a time a process that stood still in the pauses could
// store something in.
func (v *verdict) working(from, to time.Time, pauses []Span) time.Duration {
	spans := append(v.unable(), pauses...)
	slices.SortFunc(spans, func(a, b Span) int { return a.From.Compare(b.From) })
	window := Span{from, to}
	idle := time.Duration(0)
	for _, s := range spans {
		idle += s.within(window)
		if end := s.To; !end.IsZero() && end.After(window.From) {
			window.From = end // what is counted is not counted again
		}
	}
	return to.Sub(from) - idle
}
