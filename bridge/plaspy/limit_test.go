package plaspy

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestSetLimit changes the limit while requests wait, to none and back, and checks
// the pace.
func TestSetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(60, slog.New(slog.DiscardHandler), nil)
		sent := func(d time.Duration) (n int) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			for {
				if _, err := b.Wait(ctx, Poll); err != nil {
					return n
				}
				if n++; n > 5000 {
					return n // nothing limits
				}
			}
		}
		for _, tt := range []struct{ limit, min, max int }{{60, 57, 60}, {600, 570, 600}, {6, 5, 6}, {0, 5001, 5001}, {60, 57, 60}} {
			b.SetLimit(tt.limit)
			if n := sent(time.Minute); n < tt.min || n > tt.max {
				t.Errorf("limit %d: %d requests in a minute, want %d to %d", tt.limit, n, tt.min, tt.max)
			}
		}
		go func() {
			time.Sleep(time.Second)
			b.SetLimit(600) // a waiter profits at once
		}()
		b.SetLimit(1)
		if n := sent(3 * time.Second); n < 10 {
			t.Errorf("%d requests after the limit was raised, want about 20", n)
		}
		b.Throttled(0, false)
		b.SetLimit(0)
		if rate := b.PollRate(); math.IsInf(rate, 1) || rate < 100 {
			t.Errorf("no limit while the API throttles: %v polls a minute", rate)
		}
		if n := sent(10 * time.Minute); n < 5000 {
			t.Errorf("%d requests after the throttling", n)
		}
	})
}
