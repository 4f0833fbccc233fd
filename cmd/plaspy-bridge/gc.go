package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"plaspy-bridge/bridge/tick"
)

// Bounds of the garbage collector's target, in percent of the live heap and in
// bytes of headroom above it.
const (
	minPercent  = 40
	maxPercent  = 400
	minHeadroom = 6 << 20
	// maxHeadroom bounds the headroom, unless a collection a second needs more: the
	// state of a large fleet is read with garbage of 200 MB a second.
	maxHeadroom = 80 << 20
	// fastRate is the allocation rate, in bytes a second, at which the headroom
	// equals the live heap. The cost of a collection grows with the live heap, so
	// a headroom of live * rate / fastRate keeps the collector's share of the CPU
	// time at one level for every fleet and poll rate, within the bounds.
	fastRate = 8 << 20
)

// gcPercent returns the target for a live heap and an allocation rate in bytes a
// second. Nearly everything that a poll allocates is garbage when it ends. So a
// small headroom is enough for few polls, regardless of the size of the fleet. A
// larger one saves a quarter of the CPU time of many polls.
func gcPercent(live, rate float64) int {
	if live <= 0 {
		return 100
	}
	least := max(minPercent, 100*minHeadroom/live)
	most := max(least, min(maxPercent, 100*max(maxHeadroom, rate)/live))
	return int(min(max(100*rate/fastRate, least), most))
}

// processors decides how many threads run Go code at once: one while the process does
// nearly nothing, and the runtime's default otherwise. With several, each wake-up of
// an idle process wakes a second thread too, which finds nothing to do; that is a
// fifth of the CPU time at ten polls a second.
type processors struct {
	quiet int // seconds in a row with a low allocation rate
	one   bool
}

// The allocation rates, in bytes a second, that the default number begins and ends
// with, and the seconds of a low rate that one thread begins after. A poll allocates
// 12 to 17 kB.
const (
	busyRate  = 1 << 20
	quietRate = 1 << 19
	quietFor  = 10
)

// next takes the allocation rate of a second. It reports whether one thread is enough
// from now on, and whether that is a change.
func (p *processors) next(rate float64) (one, changed bool) {
	was := p.one
	switch {
	case rate >= busyRate:
		p.quiet, p.one = 0, false
	case rate >= quietRate:
		p.quiet = 0
	default:
		p.quiet = min(p.quiet+1, quietFor)
		p.one = p.one || p.quiet == quietFor
	}
	return p.one, p.one != was
}

// apply sets the number of threads. Each change stops the world for a moment.
func (p *processors) apply(rate float64) {
	switch one, changed := p.next(rate); {
	case !changed:
	case one:
		runtime.GOMAXPROCS(1)
	default:
		runtime.SetDefaultGOMAXPROCS() // it follows the container's limit again
	}
}

// tuneRuntime follows the live heap and the allocation rate with the collector's
// target and the number of threads, until the function that it returns is called.
// GOGC and GOMAXPROCS turn these off; GOMEMLIMIT holds in any case.
func tuneRuntime(ctx context.Context) (stop func()) {
	heap, threads := os.Getenv("GOGC") == "", os.Getenv("GOMAXPROCS") == ""
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { follow(ctx, heap, threads) })
	return func() {
		cancel()
		done.Wait()
	}
}

// excess reports whether so much memory is free, beside a live heap and an allocation
// rate in bytes a second, that it should be given back to the system. The runtime does
// that too, but over minutes. The start of a large fleet leaves much, but needs it
// again while it lasts.
func excess(live, free uint64, rate float64) bool {
	return free > 64<<20 && free > live/2 && float64(free) > 4*rate
}

func follow(ctx context.Context, heap, threads bool) {
	const every = time.Second
	ticker := tick.NewTicker(every)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	collector, before := newCollector(heap), uint64(0)
	var number processors
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
		}
		metrics.Read(sample)
		allocated := sample[1].Value.Uint64()
		rate := float64(allocated-before) / every.Seconds()
		before = allocated
		if heap {
			collector.apply(sample[0].Value.Uint64(), sample[2].Value.Uint64(), rate)
		}
		if threads {
			number.apply(rate)
		}
	}
}

// collector is the state of the garbage collector's settings.
type collector struct {
	percent int
	freed   time.Time
}

// newCollector sets a low target if it is to be set at all, because most objects of
// the start live as long as the process.
func newCollector(set bool) *collector {
	c := &collector{percent: 60}
	if set {
		debug.SetGCPercent(c.percent)
	}
	return c
}

// apply sets the target, and gives memory back.
func (c *collector) apply(live, free uint64, rate float64) {
	const pause = time.Minute
	// Each change stops the world for a moment.
	if next := gcPercent(float64(live), rate); 8*next > 9*c.percent || 9*next < 8*c.percent {
		c.percent = next
		debug.SetGCPercent(c.percent)
	}
	if excess(live, free, rate) && time.Since(c.freed) > pause {
		c.freed = time.Now()
		debug.FreeOSMemory()
	}
}
