package auth

import (
	"math/rand/v2"
	"time"
)

const (
	refusedFirst  = 5 * time.Second
	refusedMax    = 2 * time.Minute
	failedFirst   = 500 * time.Millisecond
	failedMax     = 30 * time.Second
	unprovenFirst = time.Second
	unprovenMax   = 2 * time.Minute
	retryAfterMax = time.Hour // a header that asks for more is taken for a mistake
	abandonedRest = time.Second
	peace         = 10 * time.Second // a token that worked is refused soon if it is so young
	shortLivedMax = 10               // after so many of these in a row their replacements are spaced out
	doubtFor      = 2 * time.Second  // how long a new token that is refused is kept for others to try
	doubtsKept    = 100
	deafFor       = time.Minute // a resource that refuses good tokens has no other fetched for so long
	deafKept      = 1000
)

// pace decides when the next token request may go out. It belongs to the Manager's mutex.
type pace struct {
	next     time.Time // no request before this
	err      *Error    // the last failure; nil after a success
	since    time.Time // when this kind of failure began
	tries    int       // failures of this kind in a row
	unproven int       // tokens in a row that were refused before any call succeeded with them
}

// failed notes a failure and reports whether its kind is new.
func (p *pace) failed(now time.Time, err *Error) (delay time.Duration, changed bool) {
	changed = p.err == nil || p.err.Refused != err.Refused
	if changed {
		p.since, p.tries = now, 0
	}
	p.err = err
	if err.Refused {
		delay = grow(refusedFirst, refusedMax, p.tries)
	} else {
		delay = grow(failedFirst, failedMax, p.tries)
	}
	p.tries++
	delay = max(delay, min(err.RetryAfter, retryAfterMax))
	p.next = now.Add(delay)
	return delay, changed
}

// rejected notes that a token nobody had success with was refused.
func (p *pace) rejected(now time.Time) (delay time.Duration) {
	delay = grow(unprovenFirst, unprovenMax, p.unproven)
	p.unproven++
	p.hold(now.Add(delay))
	return delay
}

// hold keeps the next request from going out before t.
func (p *pace) hold(t time.Time) {
	if t.After(p.next) {
		p.next = t
	}
}

// reset forgets what a new key may cure, and reports whether there was anything. An outage or a Retry-After
// is not cured by a key.
func (p *pace) reset() bool {
	if p.err != nil && !p.err.Refused && !p.err.keyless {
		return false
	}
	cured := !p.next.IsZero()
	p.next, p.tries, p.unproven = time.Time{}, 0, 0
	return cured
}

// grow doubles first n times up to limit. All but the first are shortened by up to a quarter at random.
func grow(first, limit time.Duration, n int) time.Duration {
	if n == 0 {
		return first
	}
	d := limit
	if n < 20 {
		d = min(first<<n, limit)
	}
	return d - rand.N(d/4)
}
