// Package tick lets periodic work of the whole process fall on the same moments. An
// idle process is woken once for all work that is due then, instead of once for each.
//
// Ticks of an interval are at its multiples, so they coincide with those of every
// interval that divides it. Intervals of periodic work are therefore multiples of
// [Grid]. The package has no goroutine.
package tick

import (
	"sync/atomic"
	"time"
)

// Grid is the interval that others are multiples of.
const Grid = 250 * time.Millisecond

// phase moves all ticks of this process, in nanoseconds.
var phase atomic.Int64

// Shift moves all ticks of this process by d, so that those of many processes do not
// coincide. Call it before the ticks are used.
func Shift(d time.Duration) { phase.Store(int64(d)) }

// Until returns the time from now until the next tick of an interval: at least a
// millisecond, because timers may fire early by the wall clock, and at most a
// millisecond more than the interval.
func Until(now time.Time, interval time.Duration) time.Duration {
	since := time.Duration((now.UnixNano() - phase.Load()) % int64(interval))
	if since < 0 {
		since += interval
	}
	if until := interval - since; until >= time.Millisecond {
		return until
	}
	return 2*interval - since
}

// Ticker is like [time.Ticker], with its ticks at the multiples of its interval. Its
// methods are for one goroutine.
type Ticker struct {
	C        <-chan time.Time
	timer    *time.Timer
	interval time.Duration
}

// NewTicker returns a ticker. Call Next after each tick, or there is no other.
func NewTicker(interval time.Duration) *Ticker {
	timer := time.NewTimer(Until(time.Now(), interval))
	return &Ticker{C: timer.C, timer: timer, interval: interval}
}

// Next sets the ticker to the next tick. One that has passed unseen is dropped.
func (t *Ticker) Next() { t.timer.Reset(Until(time.Now(), t.interval)) }

// Stop ends the ticks.
func (t *Ticker) Stop() { t.timer.Stop() }
