package backoff_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth/backoff"
)

func TestDelay(t *testing.T) {
	for _, tc := range []struct {
		name         string
		first, limit time.Duration
		n            int
		want         time.Duration // at most, and at least three quarters of it
	}{
		{"first", time.Second, time.Minute, 0, time.Second},
		{"second", time.Second, time.Minute, 1, 2 * time.Second},
		{"sixth", time.Second, time.Minute, 5, 32 * time.Second},
		{"limit", time.Second, time.Minute, 6, time.Minute},
		{"far beyond the range of the type", time.Second, time.Minute, 1000, time.Minute},
		{"first is above the limit", time.Hour, time.Minute, 0, time.Minute},
		{"nothing to shorten", 1, 3, 5, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 100 {
				got := backoff.Delay(tc.first, tc.limit, tc.n)
				if got > tc.want || got < tc.want*3/4 || tc.n == 0 && got != tc.want {
					t.Fatalf("got %v, want %v", got, tc.want)
				}
			}
		})
	}
}

func TestRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var begun []time.Duration // the waits before the calls
		ended := time.Now()
		backoff.Repeat(ctx, time.Second, 2*time.Second, func() {
			begun = append(begun, time.Since(ended).Truncate(500*time.Millisecond))
			switch len(begun) {
			case 4: // it worked for a while
				time.Sleep(time.Minute)
			case 5:
				cancel()
			}
			ended = time.Now()
		})
		if want := []time.Duration{0, time.Second, 1500 * time.Millisecond, 1500 * time.Millisecond, time.Second}; !slices.Equal(begun, want) {
			t.Errorf("waits %v, want %v", begun, want)
		}
		if since := time.Since(ended); since != 0 {
			t.Errorf("it ended %v after the context", since)
		}
	})
}
