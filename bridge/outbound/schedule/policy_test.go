package schedule_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// both runs a test that holds for either policy.
func both(t *testing.T, test func(t *testing.T, p *schedule.Schedule)) {
	t.Helper()
	t.Run("fixed", func(t *testing.T) { test(t, schedule.NewFixed(time.Minute)) })
	t.Run("adaptive", func(t *testing.T) { test(t, adaptive()) })
}

func TestRemoveAndAdd(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		addAll(p, start, 3)
		p.Add(start, name(0))
		if got := p.Len(); got != 3 {
			t.Fatalf("len: got %d, want 3", got)
		}
		id, ok, _ := p.Next(start)
		if !ok {
			t.Fatal("got no device, want one at once")
		}
		p.Remove(start, id)
		p.Remove(start, id)
		if got := p.Len(); got != 2 {
			t.Errorf("len after removing one that is out: got %d, want 2", got)
		}
		p.Add(start, id) // back before the answer: still out
		for _, q := range serve(p, start, start.Add(5*time.Minute), time.Millisecond, nothing) {
			if q.id == id {
				t.Fatalf("%s polled at %v, want not before its poll is done", id, q.at)
			}
		}
		now := start.Add(5 * time.Minute)
		p.Done(now, id, nothing(now, id))
		p.Remove(now, name(2))
		polled := make(map[string]int)
		for _, q := range serve(p, now, now.Add(5*time.Minute), time.Millisecond, nothing) {
			polled[q.id]++
		}
		if polled[id] == 0 || polled[name(2)] != 0 {
			t.Errorf("polls: got %v, want some of %s and none of %s", polled, id, name(2))
		}
		for i := range 3 {
			p.Remove(now, name(i))
		}
		later := now.Add(time.Hour)
		if id, ok, wake := p.Next(later); ok || !wake.IsZero() || p.Len() != 0 {
			t.Errorf("without devices: got %q, %v, wake %v, len %d; want nothing", id, ok, wake, p.Len())
		}
		p.Done(later, id, nothing(later, id)) // not out: nothing happens
		p.Soon(later, "stranger")
	})
}

func TestSoonGoesFirst(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		p.SetRate(start, 60)
		addAll(p, start, 100)
		serve(p, start, start.Add(3*time.Minute), time.Second, nothing)
		now := start.Add(3*time.Minute + 30*time.Second)
		p.Soon(now, name(42))
		p.Soon(now, name(43))
		for _, want := range []string{name(42), name(43)} {
			id, ok, _ := p.Next(now)
			if !ok || id != want {
				t.Fatalf("next: got %q, %v, want %q", id, ok, want)
			}
			p.Soon(now, id) // while out: once more as soon as it is back
			p.Done(now, id, schedule.Observation{Failed: true, NotBefore: now.Add(10 * time.Second)})
		}
		for _, q := range serve(p, now, now.Add(10*time.Second-1), time.Second, nothing) {
			if q.id == name(42) || q.id == name(43) {
				t.Fatalf("%s polled at %v, want not before %v", q.id, q.at, now.Add(10*time.Second))
			}
		}
		now = now.Add(10 * time.Second)
		if id, _, _ := p.Next(now); id != name(42) {
			t.Errorf("next after the wait: got %q, want %q", id, name(42))
		}
	})
}

// Devices that have queued up are polled in the order in which they were due.
func TestDuePollsQueueInOrder(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		const n = 50
		addAll(p, start, n)
		serve(p, start, start.Add(5*time.Minute), time.Millisecond, nothing)
		now := start.Add(10 * time.Minute) // nothing was asked for in between
		last := time.Time{}
		for i := range n {
			due := make(map[string]time.Time)
			for j := range n {
				due[name(j)] = p.Explain(now, name(j)).Next
			}
			id, ok, _ := p.Next(now)
			if !ok {
				t.Fatalf("poll %d: got none, want one", i)
			}
			if due[id].Before(last) {
				t.Fatalf("poll %d: got %s, due %v, after one due %v", i, id, due[id], last)
			}
			last = due[id]
		}
	})
}

func TestStatsSayWhatIsImpossible(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		addAll(p, start, 120)
		for _, tc := range []struct {
			rate       float64
			impossible bool
			lap        time.Duration
		}{{0, false, 0}, {60, true, 2 * time.Minute}, {240, false, 30 * time.Second}, {math.NaN(), false, 0}} {
			p.SetRate(start, tc.rate)
			got := p.Stats(start)
			if got.Impossible != tc.impossible || got.Lap != tc.lap {
				t.Errorf("rate %v: got %+v, want impossible %v, lap %v", tc.rate, got, tc.impossible, tc.lap)
			}
		}
	})
}

// FuzzAdaptive checks that the policy works with any observations and any steps of the clock.
func FuzzAdaptive(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 255, 128, 7, 7, 7, 90, 200, 31})
	f.Add([]byte(strings.Repeat("\x05\x80\xff\x00\x10", 40)))
	f.Fuzz(func(t *testing.T, script []byte) {
		p := adaptive()
		now := start
		out := make(map[string]bool)
		for i := 0; i+3 < len(script); i += 4 {
			op, id, x, y := script[i]%8, name(int(script[i+1]%5)), script[i+2], script[i+3]
			now = now.Add(time.Duration(int8(x)) * time.Second)
			switch op {
			case 0:
				p.Add(now, id)
			case 1:
				p.Remove(now, id)
			case 2:
				p.SetRate(now, float64(y)*float64(x))
			case 3:
				p.Soon(now, id)
			case 4, 5:
				got, ok, wake := p.Next(now)
				if ok && out[got] {
					t.Fatalf("%s handed out twice", got)
				}
				if ok {
					out[got] = true
				} else if !wake.IsZero() && wake.Before(now) {
					t.Fatalf("wake %v is before %v", wake, now)
				}
			default:
				delete(out, id)
				stamp := now.Add(-time.Duration(y) * time.Second)
				if y > 250 {
					stamp = time.Time{}
				}
				p.Done(now, id, schedule.Observation{
					Failed: x%5 == 0, Fix: x%7 != 0, Changed: x%2 == 0, FixTime: stamp,
					Speed: float64(y) - 100, Input: int8(x),
				})
			}
			if e := p.Explain(now, id); e.Line == "" || strings.Contains(e.Line, "\n") {
				t.Fatalf("explanation: got %q, want one line", e.Line)
			}
			if s := p.Stats(now); s.TripDetection < 0 {
				t.Fatalf("stats: got %+v for %d devices", s, p.Len())
			}
		}
	})
}

func BenchmarkNextDone(b *testing.B) {
	for _, n := range []int{1000, 20000} {
		for _, kind := range []string{"fixed", "adaptive"} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				p := schedule.NewFixed(time.Minute)
				if kind == "adaptive" {
					p = adaptive()
				}
				p.SetRate(start, float64(n))
				addAll(p, start, n)
				gap := time.Minute / time.Duration(n)
				now := start
				step := func() {
					now = now.Add(gap)
					if id, ok, _ := p.Next(now); ok {
						p.Done(now, id, ticking(now))
					}
				}
				for range 3 * n {
					step()
				}
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
	}
}
