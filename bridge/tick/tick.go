// Package tick lets periodic work of the whole process share wake-ups. Each wake-up
// of an idle process costs as much as a poll.
//
// Ticks of an interval are at its multiples, so they coincide with those of every
// interval that divides it. Intervals of periodic work are therefore multiples of
// [Grid]. If the process is awake for a poll shortly before a tick, [Awake] lets the
// tick come then instead.
package tick

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Grid is the interval that others are multiples of.
	Grid = 250 * time.Millisecond
	// early is how much too early a tick may come. It is a little less than the time
	// between two polls at the default budget.
	early = 100 * time.Millisecond
)

// Until returns the time from now until the next tick of an interval. A tick that may
// come now already counts as past.
func Until(now time.Time, interval time.Duration) time.Duration {
	since := time.Duration((now.UnixNano() - process.phase.Load()) % int64(interval))
	if since < 0 {
		since += interval
	}
	if until := interval - since; until > lead(interval) {
		return until
	}
	return 2*interval - since
}

// lead is how much too early the end of a wait may be.
func lead(wait time.Duration) time.Duration { return min(early, wait/2) }

// process holds the timers of this process.
var process = timers{started: time.Now(), all: make(map[*Timer]struct{})}

type timers struct {
	started time.Time // times are since then
	phase   atomic.Int64
	shared  atomic.Bool
	soonest atomic.Int64 // no timer may end before

	mu  sync.Mutex
	all map[*Timer]struct{} // that run, and some that have ended
}

// Share lets [Awake] have its effect, and moves all ticks of this process by phase, so
// that those of many processes do not coincide. Call it before the first tick.
func Share(phase time.Duration) {
	process.phase.Store(int64(phase))
	process.shared.Store(true)
}

// Awake ends the waits that may end now. Call it when the process is awake for
// another reason. It is cheap enough for each poll, and does not block.
func Awake() {
	if process.shared.Load() {
		process.awake()
	}
}

func (p *timers) awake() {
	now := int64(time.Since(p.started))
	if now < p.soonest.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	soonest := int64(math.MaxInt64)
	for t := range p.all {
		if now < t.from {
			soonest = min(soonest, t.from)
			continue
		}
		delete(p.all, t)
		if now < t.end {
			t.timer.Reset(0)
		}
	}
	p.soonest.Store(soonest)
}

// Timer is like [time.Timer], but may end early: after half of its time, and by a
// tenth of a second at most.
type Timer struct {
	C         <-chan time.Time
	timer     *time.Timer
	from, end int64 // it may end from then on, and ends then; guarded by the mutex of the timers
}

// NewTimer returns a timer that ends once. Stop it.
func NewTimer(d time.Duration) *Timer {
	t := &Timer{timer: time.NewTimer(d)}
	t.C = t.timer.C
	t.Reset(d)
	return t
}

// Reset lets the timer end once more, as if it had not ended before.
func (t *Timer) Reset(d time.Duration) {
	p := &process
	p.mu.Lock()
	defer p.mu.Unlock()
	t.end = int64(time.Since(p.started) + d)
	t.from = t.end - int64(lead(d))
	p.all[t] = struct{}{}
	if t.from < p.soonest.Load() {
		p.soonest.Store(t.from)
	}
	t.timer.Reset(d)
}

// Stop keeps the timer from ending.
func (t *Timer) Stop() {
	process.mu.Lock()
	defer process.mu.Unlock()
	delete(process.all, t)
	t.timer.Stop()
}

// Ticker has its ticks at the multiples of its interval.
type Ticker struct {
	*Timer
	interval time.Duration
}

// NewTicker returns a ticker. Call Next after each tick, or there is no other. Stop it.
func NewTicker(interval time.Duration) Ticker {
	return Ticker{NewTimer(Until(time.Now(), interval)), interval}
}

// Next sets the ticker to the next tick. One that has passed unseen is dropped.
func (t Ticker) Next() { t.Reset(Until(time.Now(), t.interval)) }
