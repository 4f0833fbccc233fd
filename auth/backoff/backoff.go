// Package backoff computes the waits between tries.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Delay returns the wait after failure n, counted from 0: first, doubled n times, at most limit. All but the one
// after failure 0 are shortened by up to a quarter at random.
func Delay(first, limit time.Duration, n int) time.Duration {
	d := limit
	if n < 62 && first<<n>>n == first {
		d = min(first<<n, limit)
	}
	if n == 0 || d < 4 {
		return d
	}
	return d - rand.N(d/4)
}
