// Package backoff computes the waits between tries, and waits. It is the one place that uses
// github.com/cenkalti/backoff, with its defaults set: that library gives up after 15 minutes and adds its
// jitter on top of the longest interval.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Delay returns the wait after failure n, counted from 0: first, doubled n times, at most limit. All but the one
// after failure 0 are shortened by up to a quarter at random.
func Delay(first, limit time.Duration, n int) time.Duration {
	intervals := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(first, limit)), backoff.WithMultiplier(2), backoff.WithMaxInterval(limit),
		backoff.WithRandomizationFactor(0), backoff.WithMaxElapsedTime(0),
	)
	d := intervals.NextBackOff()
	for i := 0; i < n && d < limit; i++ {
		d = intervals.NextBackOff()
	}
	if n == 0 || d < 4 {
		return d
	}
	return d - rand.N(d/4)
}

// Repeat calls f until ctx is cancelled, and waits after each call as long as [Delay] says for the calls since one
// that lasted longer than limit.
func Repeat(ctx context.Context, first, limit time.Duration, f func()) {
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		f()
		if time.Since(began) > limit {
			n = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(Delay(first, limit, n)):
		}
	}
}
