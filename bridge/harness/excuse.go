package harness

import (
	"slices"
	"time"
)

// reconnect is how long the bridge may take to notice that the broker is back:
// its longest wait between two tries, and the reading of the state.
const reconnect = 4 * time.Second

// life gives the life that an answer was handed to.
func (v *verdict) life(i int) (*Life, bool) {
	n := v.answers[i].Life
	if n < 0 || n >= len(v.c.Lives) {
		return nil, false
	}
	return &v.c.Lives[n], true
}

// asksAgain tells whether the life that an answer was handed to asked about the
// device once more by an instant: then what it saw is stored.
func (v *verdict) asksAgain(i int, by time.Time) bool {
	return slices.ContainsFunc(v.answers[i+1:], func(later Answer) bool {
		return later.Life == v.answers[i].Life && (by.IsZero() || later.At.Before(by))
	})
}

// killed tells whether an answer was handed to a process that was killed in the
// next moment.
func (v *verdict) killed(i int) bool {
	life, ok := v.life(i)
	return ok && !v.asksAgain(i, time.Time{}) && life.diesAfter(v.answers[i].At, v.c.Grace, v.c.Away)
}

// diesAfter tells whether a life ended within a grace of an instant, without a
// chance to store what it had in hand: killed, or stopped without a broker.
func (l *Life) diesAfter(t time.Time, grace time.Duration, away []Span) bool {
	away = healing(away)
	switch {
	case l.To.IsZero():
		return false // an instant after the end is fine: what was on its way is answered all the same
	case !l.Killed && !covered(away, l.To) && !covered(healing(l.Cuts), l.To):
		return false
	}
	return working(t, l.To, away, l.idle()) <= grace
}

// idle gives the times in which a life could store nothing for reasons of its
// own.
func (l *Life) idle() []Span { return append(slices.Clone(l.Pauses), healing(l.Cuts)...) }

// inFlight is how soon before a pause an answer came whose reading the pause
// may have kept off.
const inFlight = 250 * time.Millisecond

// pause is one of one life.
type pause struct {
	life int
	from time.Time
}

// timedOut gives the pause in which the process gave an answer up unread.
func (v *verdict) timedOut(i int) (p pause, ok bool) {
	life, ok := v.life(i)
	if !ok {
		return pause{}, false
	}
	a := v.answers[i]
	n := slices.IndexFunc(life.Pauses, func(p Span) bool {
		// The request was sent before the answer was given: half the timeout
		// is for that.
		return p.From.Before(a.At.Add(inFlight)) && p.To.Sub(a.At) >= v.c.Timeout/2
	})
	if n < 0 {
		return pause{}, false
	}
	return pause{a.Life, life.Pauses[n].From}, true
}

// unread tells whether nobody read any of the answers that showed a change. A
// pause can do that to as many as there were polls under way, and to no more.
func (v *verdict) unread(c *change) bool {
	var last pause
	if !v.all(c, func(i int) bool {
		if v.killed(i) {
			return true
		}
		p, ok := v.timedOut(i)
		last = p
		return ok
	}) {
		return false
	}
	v.paused[last]++
	return v.paused[last] <= v.c.Workers
}

// overtaken tells whether an answer was handed to a process that, in the next
// moment, stood still or was cut off from the broker until another one had asked
// about the device.
func (v *verdict) overtaken(i int) bool {
	life, ok := v.life(i)
	if !ok {
		return false
	}
	a := v.answers[i]
	befell := func(s, heals Span) bool {
		if !heals.To.IsZero() && heals.To.Before(a.At) || v.working(a.At, s.From) > v.c.Grace || v.asksAgain(i, s.To) {
			return false
		}
		return slices.ContainsFunc(v.answers[i+1:], func(later Answer) bool {
			return later.Life != a.Life && heals.covers(later.At)
		})
	}
	cuts := healing(life.Cuts)
	for n, s := range life.Cuts {
		if befell(s, cuts[n]) {
			return true
		}
	}
	return slices.ContainsFunc(life.Pauses, func(s Span) bool { return befell(s, s) })
}

// taken tells whether the broker lost a change after it was stored: it was
// there when the stream was last read, or had no time to get there.
func (v *verdict) taken(c *change) bool {
	return slices.ContainsFunc(v.c.Losses, func(l Loss) bool {
		held := func(e Event) bool { return e.Kind == "location" && e.Device == v.device && e.key == c.key }
		switch {
		case c.first.After(l.At):
			return false
		// A bridge that was cut off when it saw it may have had it stored after the
		// copy was made.
		case slices.ContainsFunc(l.Held, func(e Event) bool { return held(e) && e.Stored.After(l.Since) }):
			return true
		case !l.All && c.first.Before(l.Since) && v.working(c.first, l.Since) > v.c.Grace:
			return false // it was in the older copy
		case c.first.After(l.Read) || v.working(c.first, l.Read) <= v.c.Grace:
			return true
		}
		return slices.ContainsFunc(l.Held, held)
	})
}

// healing gives times without a broker as the bridge had them.
func healing(spans []Span) []Span {
	spans = slices.Clone(spans)
	for i := range spans {
		if !spans[i].To.IsZero() {
			spans[i].To = spans[i].To.Add(reconnect)
		}
	}
	return spans
}

func covered(spans []Span, t time.Time) bool {
	return slices.ContainsFunc(spans, func(s Span) bool { return s.covers(t) })
}

// working is how much of a time remains without the spans, which may overlap.
func working(from, to time.Time, spans ...[]Span) time.Duration {
	all := slices.Concat(spans...)
	slices.SortFunc(all, func(a, b Span) int { return a.From.Compare(b.From) })
	window := Span{from, to}
	idle := time.Duration(0)
	for _, s := range all {
		idle += s.within(window)
		if s.To.IsZero() || s.To.After(to) {
			break
		}
		if s.To.After(window.From) {
			window.From = s.To // what is counted is not counted again
		}
	}
	return to.Sub(from) - idle
}

// working is how much of a time the broker could store something in.
func (v *verdict) working(from, to time.Time) time.Duration {
	return working(from, to, healing(v.c.Away))
}
