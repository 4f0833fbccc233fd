package tick_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"plaspy-bridge/bridge/tick"
)

// Ticks of an interval coincide with those of each interval that divides it, however
// the process has shifted them, and a next one is never far away.
func TestTicksCoincide(t *testing.T) {
	defer tick.Shift(0)
	rapid.Check(t, func(t *rapid.T) {
		tick.Shift(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "shift")))
		now := time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "now"))
		short := tick.Grid * time.Duration(rapid.IntRange(1, 20).Draw(t, "short"))
		long := short * time.Duration(rapid.IntRange(1, 20).Draw(t, "factor"))
		until := tick.Until(now, long)
		if until < time.Millisecond || until >= long+time.Millisecond {
			t.Fatalf("got %v, want at most %v", until, long)
		}
		at := now.Add(until)
		if next := at.Add(tick.Until(at, short)); next.Sub(at) != short {
			t.Fatalf("the next tick of %v is %v after a tick of %v", short, next.Sub(at), long)
		}
	})
}

// A ticker that begins at any moment ticks together with all others, and goes on
// after ticks that its goroutine missed.
func TestTicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		time.Sleep(1700 * time.Millisecond)
		ticker := tick.NewTicker(time.Second)
		defer ticker.Stop()
		for _, want := range []time.Duration{2, 3, 6, 7} {
			at := <-ticker.C
			if got := at.Sub(start); got != want*time.Second {
				t.Errorf("got a tick after %v, want %v s", got, int(want))
			}
			if want == 3 {
				time.Sleep(2500 * time.Millisecond)
			}
			ticker.Next()
		}
	})
}
