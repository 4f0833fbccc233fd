package backoff_test

import (
	"testing"
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
