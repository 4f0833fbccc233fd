package schedule_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkMillion simulates large fleets with one poll a minute of each device. It
// reports the time of a decision and its learning, and the memory of a device.
func BenchmarkMillion(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			before := heap()
			p := adaptive()
			p.SetRate(start, float64(n))
			addAll(p, start, n)
			now, gap := start, time.Minute/time.Duration(n)
			step := func() {
				now = now.Add(gap)
				if id, ok, _ := p.Next(now); ok {
					p.Done(now, id, ticking(now))
				}
			}
			for range n {
				step()
			}
			used := heap() - before
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(used)/float64(n), "B/device")
			runtime.KeepAlive(p)
		})
	}
}

// heap returns the bytes of the live heap.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
