package plaspy

import (
	"container/list"
	"context"
	"math"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/plaspy/daily"
)

// queues holds the waiters by kind, and decides on the order in which they get slots. It belongs to the Budget's
// mutex.
type queues struct {
	waiters [kinds]list.List // of *waiter
	virtual [kinds]float64   // weighted service received, for fairness
	clock   float64          // virtual of the last served
	posts   float64          // posts for each poll while both wait
	// recent are the slots given to lists and queries within the window of their quarter, oldest first.
	recent [kinds][]time.Time
}

// weightOf is a kind's part among Post, Poll and Query.
func (q *queues) weightOf(k Kind) float64 {
	if k == Post {
		return weight[Post] * q.posts
	}
	return weight[k]
}

// add puts a waiter behind the others of its kind.
func (q *queues) add(w *waiter) *list.Element {
	if q.waiters[w.kind].Len() == 0 {
		q.virtual[w.kind] = max(q.virtual[w.kind], q.clock) // no credit for having been idle
	}
	return q.waiters[w.kind].PushBack(w)
}

// first returns the kind that gets the next slot. rate is requests per minute. A kind with a wait in held gets no
// slot; if only such kinds have waiters, wait is the shortest of their waits.
func (q *queues) first(now time.Time, rate float64, held *holds) (k Kind, wait time.Duration, waiting bool) {
	if q.waiters[Token].Len() > 0 {
		return Token, 0, true
	}
	best, found := Query, false
	for _, k := range []Kind{Post, Poll, Query} {
		switch {
		case q.waiters[k].Len() == 0:
		case held.wait[k] > 0:
			wait, waiting = held.least(k, wait, waiting), true
		case !found || (best != Post || !held.postsFirst) && q.virtual[k] < q.virtual[best]:
			best, found = k, true
		}
	}
	switch {
	case q.waiters[List].Len() == 0:
	case held.wait[List] > 0:
		wait, waiting = held.least(List, wait, waiting), true
	case !found || q.room(List, now, rate, 0):
		return List, 0, true
	}
	if found {
		return best, 0, true
	}
	return best, wait, waiting
}

// holds are the kinds that have to wait so that the account's daily usage lasts until midnight.
type holds struct {
	wait       [kinds]time.Duration
	postsFirst bool
}

// least returns the wait of k, or that of other kinds, if there are any and theirs is shorter.
func (h *holds) least(k Kind, wait time.Duration, others bool) time.Duration {
	if others {
		return min(wait, h.wait[k])
	}
	return h.wait[k]
}

// room reports whether one more slot for kind k, behind those ahead of it, fits into a quarter of the rate.
func (q *queues) room(k Kind, now time.Time, rate float64, ahead int) bool {
	room, span := int(min(rate, math.MaxInt32)/4), window
	if room < 1 {
		room, span = 1, time.Duration(float64(4*window)/rate)
	}
	for len(q.recent[k]) > 0 && now.Sub(q.recent[k][0]) > span {
		q.recent[k] = q.recent[k][1:]
	}
	return len(q.recent[k])+ahead < room
}

// serve removes and returns the longest waiter of kind k, for which the slot is.
func (q *queues) serve(k Kind, slot time.Time) *waiter {
	if w := q.weightOf(k); w > 0 {
		q.clock = q.virtual[k]
		q.virtual[k] += 1 / w
	}
	if k == List || k == Query {
		q.recent[k] = append(q.recent[k], slot)
	}
	return q.waiters[k].Remove(q.waiters[k].Front()).(*waiter)
}

// unserve undoes serve for a slot that is given back.
func (q *queues) unserve(k Kind) {
	if n := len(q.recent[k]); n > 0 {
		q.recent[k] = q.recent[k][:n-1]
	}
}

// grantDueLocked gives out every slot that is due and sets the timer for the next.
func (b *Budget) grantDueLocked(now time.Time) {
	for {
		k, wait, waiting := b.queues.first(now, b.rateLocked(now), b.holdsLocked(now))
		if !waiting {
			b.queued = false
			b.settleLocked(now)
			if !b.brake.since.IsZero() {
				b.wakeAtLocked(quiet) // to notice the end
			} else if b.timer != nil {
				b.timer.Stop()
			}
			return
		}
		due := b.dueLocked(now)
		if late := max(wait, due.Sub(now)); late > 0 {
			b.queued = wait == 0
			if b.spacingLocked(now) < burst {
				late = max(late, burst)
			}
			b.wakeAtLocked(late)
			return
		}
		b.grantLocked(k, due, now)
	}
}

// request is a request of a kind as the daily pace sees it.
func (k Kind) request() daily.Request {
	return daily.Request{Kind: int(k), First: k == Post || k == List}
}

// holdsLocked returns the kinds that the daily pace holds back. Requests for a token have no usage.
func (b *Budget) holdsLocked(now time.Time) *holds {
	h := &holds{}
	if b.day.On() {
		at := now.Sub(b.made)
		for k := List; k < kinds; k++ {
			h.wait[k] = b.day.Wait(at, k.request())
		}
		h.postsFirst = b.day.State(at, int(Poll), b.rateLocked(now)).Short
	}
	return h
}

// LimitDay sets the limit of the account's usage on one UTC day, which all replicas share; 0 means no limit. It
// must be called before the first request.
func (b *Budget) LimitDay(usage int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.day = daily.New(usage, b.made)
	b.day.SetShare(0, b.share)
	b.free.Store(b.limit == 0 && !b.day.On())
}

// Day returns how the account's daily usage stands.
func (b *Budget) Day() daily.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return b.day.State(now.Sub(b.made), int(Poll), b.rateLocked(now))
}

// heard notes the usage that the answer to a request with permit p states.
func (b *Budget) heard(p *Permit, a daily.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.day.Heard(now.Sub(b.made), p.usage, a)
	b.grantDueLocked(now)
}

// unused notes that no request was sent with p, which is too old for its slot to be given again.
func (b *Budget) unused(p *Permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.day.Return(time.Since(b.made), p.usage)
}

func (b *Budget) wakeAtLocked(d time.Duration) {
	if b.timer != nil {
		b.timer.Reset(d)
		return
	}
	b.timer = time.AfterFunc(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.grantDueLocked(time.Now())
	})
}

// dueLocked returns the time of the next slot.
func (b *Budget) dueLocked(now time.Time) time.Time {
	b.settleLocked(now)
	due := b.slot.Add(b.spacingLocked(now))
	if b.brake.until.After(due) {
		due = b.brake.until
	}
	return due
}

// grantLocked gives the slot that was due to the longest waiter of kind k.
func (b *Budget) grantLocked(k Kind, due, now time.Time) {
	p := &Permit{budget: b, kind: k, before: b.slot}
	p.slot = b.claimLocked(due, now)
	if k != Token {
		p.usage = b.day.Grant(now.Sub(b.made), k.request())
	}
	if k != Poll {
		b.others.add(now.Sub(b.made), 1)
	}
	w := b.queues.serve(k, p.slot)
	w.granted = p
	close(w.ready)
}

// claimLocked takes the slot that was due and returns its time.
func (b *Budget) claimLocked(due, now time.Time) time.Time {
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

// leastPace stands for a pace of 0, in requests per minute.
const leastPace = 1e-3

// queryRoomLocked reports whether one more query fits into a quarter of the budget, and into its deadline.
func (b *Budget) queryRoomLocked(ctx context.Context, now time.Time) bool {
	ahead := b.queues.waiters[Query].Len()
	if !b.queues.room(Query, now, max(b.paceLocked(now), leastPace), ahead) {
		return false
	}
	deadline, limited := ctx.Deadline()
	expected := b.dueLocked(now)
	if held := now.Add(b.day.Wait(now.Sub(b.made), Query.request())); held.After(expected) {
		expected = held
	}
	expected = expected.Add(time.Duration(ahead) * 4 * b.spacingLocked(now))
	return !limited || expected.Before(deadline)
}

// charge books a request that was sent without asking: net/http repeats one by itself if a connection turns out
// to be closed.
func (b *Budget) charge() {
	if b.free.Load() {
		b.meter.tick()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.day.Grant(now.Sub(b.made), Poll.request())
	if b.slot = b.slot.Add(b.spacingLocked(now)); b.slot.Before(now) {
		b.slot = now
	}
}

// giveBackLocked makes a slot available again if none has been given out since.
func (b *Budget) giveBackLocked(p *Permit) {
	b.day.Return(time.Since(b.made), p.usage)
	if !b.slot.Equal(p.slot) || time.Since(p.slot) > permitLife {
		return
	}
	b.slot = p.before
	if p.kind != Poll {
		b.others.add(time.Since(b.made), -1)
	}
	b.queues.unserve(p.kind)
}

// usage counts over the last minute, to ten seconds. Times are durations since the budget was made, so that
// setting the clock has no effect.
type usage struct {
	counts [6]float64
	stamp  int64 // of the newest cell, in tens of seconds
}

func (u *usage) turn(at time.Duration) {
	stamp := int64(at / (10 * time.Second))
	for range min(stamp-u.stamp, int64(len(u.counts))) {
		u.stamp++
		u.counts[u.stamp%int64(len(u.counts))] = 0
	}
	u.stamp = max(stamp, u.stamp)
}

func (u *usage) add(at time.Duration, n float64) {
	u.turn(at)
	u.counts[u.stamp%int64(len(u.counts))] += n
}

func (u *usage) perMinute(at time.Duration) (sum float64) {
	u.turn(at)
	for _, c := range u.counts {
		sum += c
	}
	covered := 50*time.Second + at%(10*time.Second) // the newest cell is not full yet
	return max(sum, 0) * float64(time.Minute) / float64(covered)
}

// meter measures about how many requests a minute are sent while nothing limits them, at the cost of one addition
// a request and a look at the clock every 256th.
type meter struct {
	started  time.Time
	n        atomic.Uint64
	marked   atomic.Uint64 // n at the last mark
	markedAt atomic.Int64  // nanoseconds since started
	rate     atomic.Uint64 // requests per minute between the last two marks; 0 means only one mark yet
}

const meterEvery = 256

func (m *meter) tick() {
	if n := m.n.Add(1); n%meterEvery == 0 {
		now := int64(time.Since(m.started))
		since := max(now-m.markedAt.Swap(now), 1)
		m.rate.Store(uint64(meterEvery * int64(window) / since))
		m.marked.Store(n)
	}
}

// perMinute takes the larger of the last full measurement and the one under way, and never less than ten
// a second, which is the limit by default: a single early 429 must not bring everything to a halt.
func (m *meter) perMinute(now time.Time) float64 {
	rate := float64(m.rate.Load())
	if since := int64(now.Sub(m.started)) - m.markedAt.Load(); since > int64(time.Second) {
		rate = max(rate, float64(m.n.Load()-m.marked.Load())*float64(window)/float64(since))
	}
	return max(rate, 600)
}
