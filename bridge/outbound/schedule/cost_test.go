package schedule_test

import (
	"fmt"
	"math"
	"runtime"
	"strconv"
	"testing"
	"time"

	"plaspy-bridge/bridge/heap"
	"plaspy-bridge/bridge/outbound/schedule"
)

// load drives a schedule with a request at equal distances. Each is answered at once, by a fleet of which four in
// ten are parked.
type load struct {
	s       *schedule.Schedule
	now     time.Time
	gap     time.Duration
	timed   func() time.Duration     // CPU time of this thread; nil means that calls are not timed
	longest map[string]time.Duration // of the timed calls, by their name
}

// newLoad returns a load of n devices at a rate in requests a minute.
func newLoad(n int, rate float64, timed func() time.Duration) *load {
	l := &load{s: adaptive(), now: start, gap: time.Duration(float64(time.Minute) / rate), timed: timed, longest: make(map[string]time.Duration)}
	l.call("SetRate", func() { l.s.SetRate(start, rate) })
	for i := range n {
		id := name(i)
		l.call("Add", func() { l.s.Add(start, id) })
	}
	return l
}

// call times one call.
func (l *load) call(name string, f func()) {
	if l.timed == nil {
		f()
		return
	}
	begin := l.timed()
	f()
	l.longest[name] = max(l.longest[name], l.timed()-begin)
}

// step is one decision: Next, and Done with the answer.
func (l *load) step() {
	l.now = l.now.Add(l.gap)
	if id, ok, _ := l.s.Next(l.now); ok {
		l.s.Done(l.now, id, rhythmic(l.now, id))
	}
}

// timedStep is step with each call timed.
func (l *load) timedStep() {
	l.now = l.now.Add(l.gap)
	var id string
	var ok bool
	l.call("Next", func() { id, ok, _ = l.s.Next(l.now) })
	if ok {
		o := rhythmic(l.now, id)
		l.call("Done", func() { l.s.Done(l.now, id, o) })
	}
}

// rhythmic is the answer of the device with the number in its name: a rhythm of its own, two seconds after
// the fix. It makes no allocation.
func rhythmic(now time.Time, id string) schedule.Observation {
	i, _ := strconv.Atoi(id[len("dev"):])
	period := time.Duration(settings[i%len(settings)]) * time.Second
	o := schedule.Observation{Fix: true, Changed: true, Speed: 40, Input: 1}
	if i%10 < 4 {
		period = time.Duration(300+i%3000) * time.Second
		o.Speed, o.Input = 0, 0
	}
	phase := time.Duration(math.Mod(float64(i)*0.618, 1) * float64(period))
	o.FixTime = start.Add((now.Sub(start) - 2*time.Second - phase).Truncate(period) + phase)
	return o
}

// TestMemoryOfADevice holds the memory that a device costs, and that decisions allocate nothing.
func TestMemoryOfADevice(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	const n, most = 20_000, 450
	empty := heap.Live()
	l := newLoad(n, 1.2*n, nil)
	for range 3 * n {
		l.step()
	}
	if got := (heap.Live() - empty) / n; got > most {
		t.Errorf("a device takes %d bytes, want %d at most", got, most)
	}
	// The average of a thousand decisions, so that the runtime's own allocations do not count.
	if got := testing.AllocsPerRun(1000, l.step); got != 0 {
		t.Errorf("a decision makes %v allocations, want none", got)
	}
	runtime.KeepAlive(l)
}

// BenchmarkDecision reports the cost of a decision with its learning after 15 minutes of 1.2 requests a minute for
// each device, and the longest call of each method, in CPU time of the thread if the system has it. SetRate sets
// half of the rate and twice the rate.
func BenchmarkDecision(b *testing.B) {
	sizes := []int{1_000, 10_000, 100_000}
	if *full {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			empty := heap.Live()
			rate := 1.2 * float64(n)
			l := newLoad(n, rate, threadTime)
			for range 18 * n {
				l.step()
			}
			used := heap.Live() - empty
			for range 10_000 {
				l.timedStep()
			}
			for i := range n / 100 {
				id := name(i)
				memory := l.s.AppendMemory(nil, id)
				l.call("Remove", func() { l.s.Remove(l.now, id) })
				l.call("Restore", func() { l.s.Restore(l.now, id, memory) })
			}
			for _, factor := range []float64{0.5, 1, 2, 1} {
				l.call("SetRate", func() { l.s.SetRate(l.now, factor*rate) })
				for range 1000 {
					l.timedStep()
				}
			}
			b.ReportAllocs()
			begin := threadTime()
			for b.Loop() {
				l.step()
			}
			b.ReportMetric(float64(threadTime()-begin)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(used)/float64(n), "B/device")
			for name, longest := range l.longest {
				b.ReportMetric(float64(longest)/1e6, name+"-ms")
			}
			runtime.KeepAlive(l)
		})
	}
}

// BenchmarkSoon asks for a fifth of all devices, and removes another fifth, before their first poll.
func BenchmarkSoon(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var used time.Duration
			for b.Loop() {
				b.StopTimer()
				l := newLoad(n, float64(n), nil)
				b.StartTimer()
				begin := threadTime()
				for i := range n / 5 {
					l.s.Soon(l.now, name(n-1-i))
					l.s.Remove(l.now, name(n/2-1-i))
				}
				used += threadTime() - begin
			}
			b.ReportMetric(float64(used)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}
