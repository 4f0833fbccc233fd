package lane

import "time"

// readMax is how many messages a lane reads at once.
const readMax = 16

// Next returns the next action for a worker. If it returns false, there is nothing
// to do before [Lanes.Wake], or before another call changes something.
func (l *Lanes) Next(now time.Time) (Action, bool) {
	for n := l.timers.due(now); n != nil; n = l.timers.due(now) {
		l.enqueue(n, false)
	}
	if n := l.toRecord(); n != nil {
		return n.record(), true
	}
	if l.stopping {
		return Action{}, false
	}
	if l.down && !now.Before(l.gate) {
		if n := l.parks.next(&l.timers, l.probes()); n != nil {
			if a, ok := l.step(n, now); ok {
				return a, true
			}
		}
	}
	for l.open < l.limits.Workers {
		n := l.pick()
		if n == nil {
			break
		}
		if a, ok := l.step(n, now); ok {
			return a, true
		}
	}
	return Action{}, false
}

// toRecord takes a lane with a verdict to record. Dead letters take
// at most half of the workers, because their stream may not answer.
func (l *Lanes) toRecord() *lane {
	if n := l.results.pop(); n != nil {
		return n
	}
	for l.stopping || l.recording < max(1, l.limits.Workers/2) {
		n := l.letters.pop()
		if n == nil {
			return nil
		}
		if !l.stopping || n.sent() {
			l.recording++
			n.letter = true
			return n
		}
		n.state = idle // the next process makes this verdict again
	}
	return nil
}

// recorded ends the recording of a dead letter.
func (l *Lanes) recorded(n *lane) {
	if n.letter {
		l.recording--
		n.letter = false
	}
}

// Wake returns when [Lanes.Next] may have something to do although nothing
// happened until then; the zero time if it will not.
func (l *Lanes) Wake() time.Time {
	at := l.timers.first()
	if l.parks.len(l.probes()) > 0 && (at.IsZero() || l.gate.Before(at)) {
		at = l.gate
	}
	return at
}

// pick takes the next lane to post. Lanes in trouble get a share of the places, so that
// healthy lanes do not wait for them.
func (l *Lanes) pick() *lane {
	share := max(1, l.limits.Workers/16)
	if l.fresh.len() == 0 {
		share = l.limits.troubled()
	}
	if l.retries.len() > 0 && l.troubled < share && (l.fresh.len() == 0 || l.healthyPosts >= 16) {
		return l.retries.pop()
	}
	return l.fresh.pop()
}

// step begins the action that the first message of a lane needs. It reports
// false if the lane was parked.
func (l *Lanes) step(n *lane, now time.Time) (Action, bool) {
	m := n.head
	switch {
	case m == nil:
		n.state = busy
		return Action{Kind: Read, Lane: n.key, From: n.next, To: n.last, Max: readMax}, true
	case m.Content == nil:
		return n.reread(), true
	case now.Sub(m.At) >= l.limits.MaxAge:
		n.state = busy
		return Action{Kind: GiveUp, Message: m}, true
	case l.down && now.Before(l.gate):
		l.park(n)
		return Action{}, false
	case l.down:
		l.gate = now.Add(time.Second) // the answer brings a better time
	}
	n.state, n.places = busy, 1
	l.open++
	l.healthyPosts++
	if m.retry.tries > 0 {
		l.troubled++
		l.healthyPosts = 0
	}
	return Action{Kind: Post, Message: m}, true
}

// reread asks for the first message of a lane again.
func (n *lane) reread() Action {
	n.state = busy
	return Action{Kind: Read, Lane: n.key, From: n.head.Seq, To: n.head.Seq, Max: 1}
}

// record begins to record a verdict. A dead letter needs the content.
func (n *lane) record() Action {
	m := n.head
	if !m.verdict.Posted && m.Content == nil {
		return n.reread()
	}
	n.state = busy
	return Action{Kind: Record, Message: m, Verdict: m.verdict, Again: m.again}
}

// enqueue makes a lane ready for a worker, before all others if front is set.
func (l *Lanes) enqueue(n *lane, front bool) {
	n.state = queued
	q := &l.fresh
	switch {
	case n.head != nil && n.head.verdict != nil && n.head.verdict.Posted:
		q = &l.results
	case n.head != nil && n.head.verdict != nil:
		q = &l.letters
	case n.head != nil && n.head.retry.tries > 0:
		q = &l.retries
	}
	q.push(n, front)
}

// wait makes a lane wait. If the wait is long, or memory is short, its messages leave
// the memory.
func (l *Lanes) wait(n *lane, now time.Time, d time.Duration, why Cause) {
	n.state, n.cause = waiting, why
	if d > l.limits.Patience || l.memory.messages > l.limits.Messages/2 || l.memory.bytes > l.limits.Bytes/2 {
		l.spill(n)
		l.memory.drop(n.head)
	}
	n.wakes = now.Add(d)
	if n.head != nil && n.head.verdict == nil {
		if old := n.head.At.Add(l.limits.MaxAge); old.Before(n.wakes) && old.After(now) {
			n.wakes = old
		}
	}
	l.timers.add(n)
}

// park makes a lane wait until the API is back, or its message is too old.
func (l *Lanes) park(n *lane) {
	n.state = parked
	l.spill(n)
	if l.memory.bytes > l.limits.Bytes/2 {
		l.memory.drop(n.head)
	}
	n.wakes = n.head.At.Add(l.limits.MaxAge)
	l.timers.add(n)
	l.parks[min(n.head.retry.tries, 1)].push(n, false)
}

// probes returns how many of the queues of parked lanes a probe may come from. A probe
// takes a place as every post does, and lanes in trouble do not get all of them: the API may
// come back while probes are in flight.
func (l *Lanes) probes() int {
	switch {
	case !l.down || l.stopping || l.open >= l.limits.Workers:
		return 0
	case l.troubled >= l.limits.troubled():
		return 1
	}
	return len(l.parks)
}

// Down notes that the API is down: no post begins before next, and then only a probe.
func (l *Lanes) Down(next time.Time) { l.down, l.gate = true, next }

// Up notes that the API is back. The parked lanes are enqueued.
func (l *Lanes) Up() {
	if !l.down {
		return
	}
	l.down = false
	for n := l.parks.next(&l.timers, len(l.parks)); n != nil; n = l.parks.next(&l.timers, len(l.parks)) {
		l.enqueue(n, false)
	}
	for _, n := range l.timers.of(Outage) {
		l.timers.remove(n)
		n.head.retry.clear(Outage)
		l.enqueue(n, false)
	}
}
