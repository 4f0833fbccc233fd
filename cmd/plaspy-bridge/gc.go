package main

import (
	"context"
	"os"
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

// tuneGC follows the live heap and the allocation rate with the collector's target
// until the function that it returns is called. GOGC turns it off; GOMEMLIMIT holds
// in any case.
func tuneGC(ctx context.Context) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { followHeap(ctx) })
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

func followHeap(ctx context.Context) {
	const every, pause = time.Second, time.Minute
	ticker := tick.NewTicker(every)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	// Low at first, because most objects of the start live as long as the process.
	percent, before := 60, uint64(0)
	debug.SetGCPercent(percent)
	var freed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
		}
		metrics.Read(sample)
		live, allocated := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		rate := float64(allocated-before) / every.Seconds()
		next := gcPercent(float64(live), rate)
		before = allocated
		// Each change stops the world for a moment.
		if 8*next > 9*percent || 9*next < 8*percent {
			percent = next
			debug.SetGCPercent(percent)
		}
		if excess(live, sample[2].Value.Uint64(), rate) && time.Since(freed) > pause {
			freed = time.Now()
			debug.FreeOSMemory()
		}
	}
}
