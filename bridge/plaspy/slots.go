package plaspy

import (
	"context"
	"math"
	"time"
)

// dispatch gives out every slot that is due and sets the timer for the next. The caller holds mu.
func (b *Budget) dispatch(now time.Time) {
	for {
		k, waiting := b.first()
		if !waiting {
			b.queued = false
			b.settle(now)
			if !b.brake.since.IsZero() {
				b.wakeAt(quiet) // somebody has to notice the end
			} else if b.timer != nil {
				b.timer.Stop()
			}
			return
		}
		due := b.due(now)
		if due.After(now) {
			b.queued = true
			b.wakeAt(due.Sub(now))
			return
		}
		b.grant(k, due, now)
	}
}

func (b *Budget) wakeAt(d time.Duration) {
	if b.timer != nil {
		b.timer.Reset(d)
		return
	}
	b.timer = time.AfterFunc(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.dispatch(time.Now())
	})
}

// due returns when the next slot is. The caller holds mu.
func (b *Budget) due(now time.Time) time.Time {
	b.settle(now)
	due := b.slot.Add(b.spacing(now))
	if b.brake.until.After(due) {
		due = b.brake.until
	}
	return due
}

// grant gives the slot that was due to the longest waiter of kind k.
func (b *Budget) grant(k Kind, due, now time.Time) {
	w := b.queues[k].Remove(b.queues[k].Front()).(*waiter)
	p := &Permit{budget: b, kind: k, before: b.slot}
	p.slot = b.claim(due, now)
	if w := b.weightOf(k); w > 0 {
		b.clock = b.virtual[k]
		b.virtual[k] += 1 / w
	}
	if k != Poll {
		b.others.add(now, 1)
	}
	if k == Query {
		b.queries = append(b.queries, p.slot)
	}
	w.granted = p
	close(w.ready)
}

// claim moves the slot on and returns it.
func (b *Budget) claim(due, now time.Time) time.Time {
	credit := idleCatchUp
	if b.queued {
		credit = catchUp
	}
	b.slot = due
	if earliest := now.Add(-credit); earliest.After(due) {
		b.slot = earliest
	}
	return b.slot
}

// first returns the kind whose turn it is.
func (b *Budget) first() (Kind, bool) {
	for _, k := range []Kind{Token, List} {
		if b.queues[k].Len() > 0 {
			return k, true
		}
	}
	best, found := Query, false
	for _, k := range []Kind{Post, Poll, Query} {
		if b.queues[k].Len() > 0 && (!found || b.virtual[k] < b.virtual[best]) {
			best, found = k, true
		}
	}
	return best, found
}

// queryRoom reports whether one more query fits into a quarter of the budget, and into its deadline.
func (b *Budget) queryRoom(ctx context.Context, now time.Time) bool {
	rate := b.rate(now)
	if math.IsInf(rate, 1) {
		rate = math.MaxInt32
	}
	room, span := int(rate/4), window
	if room < 1 {
		room, span = 1, time.Duration(float64(4*window)/rate)
	}
	for len(b.queries) > 0 && now.Sub(b.queries[0]) > span {
		b.queries = b.queries[1:]
	}
	ahead := b.queues[Query].Len()
	if len(b.queries)+ahead >= room {
		return false
	}
	deadline, limited := ctx.Deadline()
	expected := b.due(now).Add(time.Duration(ahead) * 4 * b.spacing(now))
	return !limited || expected.Before(deadline)
}

// charge books a request that was sent without asking: net/http repeats one by itself where a connection turns
// out to be closed.
func (b *Budget) charge() {
	if b.free.Load() {
		b.meter.tick()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.slot = b.slot.Add(b.spacing(now)); b.slot.Before(now) {
		b.slot = now
	}
}

// giveBack makes a slot available again if none has been given out since. The caller holds mu.
func (b *Budget) giveBack(p *Permit) {
	if !b.slot.Equal(p.slot) || time.Since(p.slot) > permitLife {
		return
	}
	b.slot = p.before
	if p.kind != Poll {
		b.others.add(time.Now(), -1)
	}
	if n := len(b.queries); p.kind == Query && n > 0 {
		b.queries = b.queries[:n-1]
	}
}
