package judge

import (
	"slices"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// reconnect is how long the bridge may take to reconnect once the broker is back: its
// longest wait between two tries, and the reading of its state.
const reconnect = 4 * time.Second

// life returns the life of the bridge that received an answer.
func (v *verdict) life(i int) (*timeline.Life, bool) {
	n := v.answers[i].Life
	if n < 0 || n >= len(v.c.Lives) {
		return nil, false
	}
	return &v.c.Lives[n], true
}

// asksAgain reports whether the life that received an answer asked for the device again
// before an instant, or ever if that is zero. By then it has stored the answer.
func (v *verdict) asksAgain(i int, by time.Time) bool {
	return slices.ContainsFunc(v.answers[i+1:], func(later Answer) bool {
		return later.Life == v.answers[i].Life && (by.IsZero() || later.At.Before(by))
	})
}

// killed reports whether the process that received an answer was killed within the grace.
func (v *verdict) killed(i int) bool {
	life, ok := v.life(i)
	return ok && !v.asksAgain(i, time.Time{}) && diesAfter(life, v.answers[i].At, v.c.Grace, v.c.Away)
}

// diesAfter reports whether a life ended within a grace of an instant and could not store
// its last changes: it was killed, or stopped without a broker.
func diesAfter(l *timeline.Life, t time.Time, grace time.Duration, away []timeline.Span) bool {
	away = healing(away)
	switch {
	case l.To.IsZero():
		return false // an answer may come after the end: the API answers a request that was on its way
	case !l.Killed && !timeline.Covered(away, l.To) && !timeline.Covered(healing(l.Cuts), l.To):
		return false
	}
	return timeline.Uncovered(t, l.To, away, idle(l)) <= grace
}

// idle returns the spans in which a life could store nothing because it was suspended or
// cut off.
func idle(l *timeline.Life) []timeline.Span {
	return append(slices.Clone(l.Pauses), healing(l.Cuts)...)
}

// inFlight is how long before a pause an answer may come and still be unread because of
// the pause.
const inFlight = 250 * time.Millisecond

// pause identifies a pause, or another fault, of one life.
type pause struct {
	life int
	from time.Time
}

// timedOut returns the pause in which the request of an answer timed out unread.
func (v *verdict) timedOut(i int) (p pause, ok bool) {
	life, ok := v.life(i)
	if !ok {
		return pause{}, false
	}
	a := v.answers[i]
	n := slices.IndexFunc(life.Pauses, func(p timeline.Span) bool {
		// The request was sent before its answer. Half of the timeout is for that.
		return p.From.Before(a.At.Add(inFlight)) && p.To.Sub(a.At) >= v.c.Timeout/2
	})
	if n < 0 {
		return pause{}, false
	}
	return pause{a.Life, life.Pauses[n].From}, true
}

// unread reports whether no bridge read any of the answers that showed a change. A pause
// excuses at most as many changes as there were polls under way.
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

// overtaken reports whether the process that received an answer was, within the grace,
// suspended or cut off from the broker until another one had asked for the device.
func (v *verdict) overtaken(i int) bool {
	life, ok := v.life(i)
	if !ok {
		return false
	}
	a := v.answers[i]
	befell := func(s, heals timeline.Span) bool {
		if !heals.To.IsZero() && heals.To.Before(a.At) || v.working(a.At, s.From) > v.c.Grace || v.asksAgain(i, s.To) {
			return false
		}
		return slices.ContainsFunc(v.answers[i+1:], func(later Answer) bool {
			return later.Life != a.Life && heals.Covers(later.At)
		})
	}
	cuts := healing(life.Cuts)
	for n, s := range life.Cuts {
		if befell(s, cuts[n]) {
			return true
		}
	}
	return slices.ContainsFunc(life.Pauses, func(s timeline.Span) bool { return befell(s, s) })
}

// taken reports whether the broker lost a change after it was stored. It was in the
// stream when that was last read, or there was no time to store it before.
func (v *verdict) taken(c *change) bool {
	return slices.ContainsFunc(v.c.Losses, func(l Loss) bool {
		held := func(e Event) bool { return e.Kind == "location" && e.Device == v.device && e.key == c.key }
		switch {
		case c.first.After(l.At):
			return false
		// A bridge that was cut off when it read the answer may have stored it after the
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

// healing returns spans without a broker as the bridge sees them: longer, because it
// reconnects only later.
func healing(spans []timeline.Span) []timeline.Span {
	spans = slices.Clone(spans)
	for i := range spans {
		if !spans[i].To.IsZero() {
			spans[i].To = spans[i].To.Add(reconnect)
		}
	}
	return spans
}

// working returns how much of the time from one instant to another the broker was there.
func (v *verdict) working(from, to time.Time) time.Duration {
	return timeline.Uncovered(from, to, healing(v.c.Away))
}
