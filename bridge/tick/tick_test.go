package tick

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// share turns sharing on for a test.
func share(t interface{ Cleanup(f func()) }, phase time.Duration) {
	Share(phase)
	t.Cleanup(func() {
		process.phase.Store(0)
		process.shared.Store(false)
	})
}

// Ticks of an interval coincide with those of each interval that divides it, however
// the process has moved them, and the next one is never far away.
func TestTicksCoincide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share(t, time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "phase")))
		now := time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "now"))
		short := Grid * time.Duration(rapid.IntRange(1, 20).Draw(t, "short"))
		long := short * time.Duration(rapid.IntRange(1, 20).Draw(t, "factor"))
		until := Until(now, long)
		if until <= early || until > long+early {
			t.Fatalf("the next tick of %v is after %v", long, until)
		}
		at := now.Add(until)
		if next := Until(at, short); next != short {
			t.Fatalf("the next tick of %v is %v after a tick of %v", short, next, long)
		}
	})
}

// A ticker that begins at any moment ticks together with all others, and goes on
// after ticks that its goroutine missed.
func TestTicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		time.Sleep(1700 * time.Millisecond)
		ticker := NewTicker(time.Second)
		defer ticker.Stop()
		for _, want := range []time.Duration{2, 3, 6, 7} {
			<-ticker.C
			if got := time.Since(start); got != want*time.Second {
				t.Errorf("got a tick after %v, want %d s", got, want)
			}
			if want == 3 {
				time.Sleep(2500 * time.Millisecond)
			}
			ticker.Next()
		}
	})
}

// TestAwake: a wake-up ends a wait that has lasted for half of its time and ends
// within a tenth of a second, and no other.
func TestAwake(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name        string
		wait, awake time.Duration
		want        time.Duration
	}{
		{"too early", 250 * ms, 149 * ms, 250 * ms},
		{"in time", 250 * ms, 150 * ms, 150 * ms},
		{"in time for a long wait", time.Hour, time.Hour - 100*ms, time.Hour - 100*ms},
		{"too early for a long wait", time.Hour, time.Hour - 101*ms, time.Hour},
		{"too early for a short wait", 20 * ms, 9 * ms, 20 * ms},
		{"in time for a short wait", 20 * ms, 10 * ms, 10 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			share(t, 0)
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				timer, stopped := NewTimer(tc.wait), NewTimer(tc.wait)
				defer timer.Stop()
				stopped.Stop()
				time.AfterFunc(tc.awake, Awake)
				<-timer.C
				if got := time.Since(start); got != tc.want {
					t.Errorf("ended after %v, want %v", got, tc.want)
				}
				time.Sleep(2 * tc.wait)
				Awake()
				synctest.Wait()
				select {
				case <-timer.C:
					t.Error("it ended twice")
				case <-stopped.C:
					t.Error("it ended although it was stopped")
				default:
				}
			})
		})
	}
}

// TestTicksShareWakeUps: with ten polls a second, at random moments, every tick
// comes together with a poll, and there are as many ticks as without polls.
func TestTicksShareWakeUps(t *testing.T) {
	share(t, 0)
	synctest.Test(t, func(t *testing.T) {
		const span = 10 * time.Minute
		polled := make(map[time.Time]bool)
		ends := time.Now().Add(span)
		for _, interval := range []time.Duration{Grid, 2 * Grid, 4 * Grid, 20 * Grid} {
			go func() {
				ticker := NewTicker(interval)
				defer ticker.Stop()
				n, alone := 0, 0
				for at := range ticker.C {
					if at.After(ends) {
						break
					}
					n++
					if !polled[at] {
						alone++
					}
					ticker.Next()
				}
				if want := int(span / interval); n < want-1 || n > want+1 || alone > 0 {
					t.Errorf("%v: %d ticks, want %d; %d without a poll", interval, n, want, alone)
				}
			}()
		}
		for now := time.Now(); now.Before(ends.Add(time.Minute)); now = time.Now() {
			polled[now] = true
			Awake()
			synctest.Wait()
			time.Sleep(1 + rand.N(early))
		}
	})
}

func BenchmarkAwake(b *testing.B) {
	share(b, 0)
	timer := NewTimer(time.Hour)
	defer timer.Stop()
	for b.Loop() {
		Awake()
	}
}
