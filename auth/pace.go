package auth

import (
	"time"

	"plaspy-bridge/auth/backoff"
)

const (
	refusedFirst  = 5 * time.Second
	refusedMax    = 2 * time.Minute
	failedFirst   = 500 * time.Millisecond
	failedMax     = 30 * time.Second
	retryAfterMax = time.Hour   // a header that asks for more is taken for a mistake
	leastSpacing  = time.Second // between token requests that succeed or are abandoned
)

// pace decides when the next token request may go out. It belongs to the Manager's mutex.
type pace struct {
	next  time.Time // no request before this
	err   *Error    // the last failure; nil after a success
	since time.Time // when this kind of failure began
	tries int       // failures of this kind in a row
}

// failed notes a failure and reports whether its kind is new.
func (p *pace) failed(now time.Time, err *Error) (delay time.Duration, changed bool) {
	changed = p.err == nil || p.err.Refused != err.Refused
	if changed {
		p.since, p.tries = now, 0
	}
	p.err = err
	if err.Refused {
		delay = backoff.Delay(refusedFirst, refusedMax, p.tries)
	} else {
		delay = backoff.Delay(failedFirst, failedMax, p.tries)
	}
	p.tries++
	delay = max(delay, min(err.RetryAfter, retryAfterMax))
	p.next = now.Add(delay)
	return delay, changed
}

// hold keeps the next request from going out before t.
func (p *pace) hold(t time.Time) {
	if t.After(p.next) {
		p.next = t
	}
}

// keyChanged lets the next request go out now, unless the API asked to wait.
func (p *pace) keyChanged() {
	if p.err == nil || p.err.RetryAfter == 0 {
		p.next, p.tries = time.Time{}, 0
	}
}
