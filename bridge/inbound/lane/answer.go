package lane

import (
	"slices"
	"time"
)

// Cause is the reason why a message waits. Each cause has a backoff of its own.
type Cause int

// The causes.
const (
	Other     Cause = iota // any other failure that may not occur again
	Outage                 // the API is down
	Throttled              // too many requests
	Auth                   // the token is refused
)

// String returns the cause in lower case, fit for a log line.
func (c Cause) String() string {
	switch c {
	case Outage:
		return "outage"
	case Throttled:
		return "throttled"
	case Auth:
		return "auth"
	}
	return "retry"
}

// Answer is the result of [Post] or [GiveUp]. The zero Answer is a failed try with
// cause [Other].
type Answer struct {
	// Verdict is the outcome of the message; nil if the message stays.
	Verdict *Verdict
	// Withheld reports that the post was not sent. It is no try.
	Withheld bool
	// Cause, AtLeast and Jitter set the wait before the next try: the backoff to use,
	// the API's Retry-After, and a random number from 0 to 1.
	Cause   Cause
	AtLeast time.Duration
	Jitter  float64
	// Now asks for the next try at once.
	Now bool
	// More reports that a part of the message is done and the next part is due. The
	// lane goes to the end of its queue.
	More bool
}

// retry counts the tries of one message.
type retry struct {
	tries int
	cause Cause
	steps int // waits for this cause
}

func (r *retry) clear(c Cause) {
	if r.cause == c {
		r.steps = 0
	}
}

// delay returns the wait before the next try.
func (r *retry) delay(a Answer, initial, limit time.Duration) time.Duration {
	if r.cause != a.Cause {
		r.cause, r.steps = a.Cause, 0
	}
	d := limit
	if r.steps < 30 && initial<<r.steps < limit {
		d = initial << r.steps
	}
	r.steps++
	d = min(time.Duration(float64(d)*(0.5+a.Jitter)), limit)
	return max(d, a.AtLeast)
}

// Answered takes the result of [Post] or [GiveUp], and returns the wait before the
// next try.
func (l *Lanes) Answered(now time.Time, m *Message, a Answer) time.Duration {
	n := l.lanes[m.Lane]
	if n == nil || n.state != busy || n.head != m {
		return 0
	}
	n.state = idle
	if n.places > 0 && m.retry.tries > 0 {
		l.troubled--
	}
	if a.Verdict != nil {
		m.verdict = a.Verdict
		if a.Verdict.Posted {
			l.memory.drop(m) // a dead letter needs the content, a result does not
		} else {
			l.release(n)
		}
		l.enqueue(n, true)
		return 0
	}
	l.release(n)
	switch {
	case a.Withheld && l.down:
		l.park(n)
	case a.Withheld:
		l.wait(n, now, l.limits.Pause/4, Other)
	case a.More:
		m.retry = retry{}
		l.enqueue(n, false)
	case a.Now:
		m.retry.tries++
		l.enqueue(n, false)
	default:
		m.retry.tries++
		d := m.retry.delay(a, l.limits.Initial, l.limits.Max)
		l.wait(n, now, d, a.Cause)
		return d
	}
	return 0
}

// release frees the worker's place that a lane takes.
func (l *Lanes) release(n *lane) {
	l.open -= n.places
	n.places = 0
}

// Recorded takes the result of [Record].
func (l *Lanes) Recorded(now time.Time, m *Message, err error) {
	n := l.lanes[m.Lane]
	if n == nil || n.state != busy || n.head != m {
		return
	}
	n.state = idle
	l.recorded(n)
	if err != nil {
		l.spill(n)
		pause := l.limits.Pause
		if l.stopping {
			pause /= 4 // the grace is short
		}
		l.wait(n, now, pause, Other)
		return
	}
	l.outcomes.recorded(m)
	l.release(n)
	l.leave(n)
	l.settle(n)
}

// Stop ends posting. From now on [Lanes.Next] returns only the actions that
// record the verdicts of messages that were sent.
func (l *Lanes) Stop() {
	l.stopping = true
	for _, n := range l.lanes {
		if n.state == waiting && n.head != nil && n.head.verdict != nil {
			l.timers.remove(n)
			l.enqueue(n, false)
		}
	}
}

// sent reports whether a lane with a verdict to record has that of a message that was sent,
// which a later process could not make again. It may be behind the first message if the
// server brought that one back.
func (n *lane) sent() bool {
	if n.head == nil || n.head.verdict == nil {
		return false
	}
	behind := func(m *Message) bool { return m.verdict != nil && m.verdict.Sent }
	return n.head.verdict.Sent || slices.ContainsFunc(n.rest, behind)
}

// Quiet reports whether a stop is complete: no action is under way, and no
// message that was sent waits to be recorded.
func (l *Lanes) Quiet() bool {
	for _, n := range l.lanes {
		if n.state == busy || n.sent() {
			return false
		}
	}
	return true
}

// Reset forgets the lanes, to read the stream again from its first message. The
// verdicts of messages that were sent are kept. The caller answers no action that
// began before.
func (l *Lanes) Reset() {
	for _, n := range l.lanes {
		if n.head != nil {
			l.outcomes.restore(n.head)
		}
		for _, m := range n.rest {
			l.outcomes.restore(m)
		}
	}
	*l = Lanes{limits: l.limits, lanes: make(map[string]*lane), outcomes: l.outcomes}
	l.outcomes.restart()
}

// CaughtUp notes that the stream holds nothing beyond [Lanes.Position]. A verdict
// of a message that was not delivered by then waits no longer.
func (l *Lanes) CaughtUp() { l.outcomes.caughtUp() }
