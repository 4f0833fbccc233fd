package inbound

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
)

// cause is why a message waits. Each has a clock of its own: a wait for one
// does not lengthen the waits for another.
type cause int

const (
	causeOther     cause = iota // an answer that may be another one next time
	causeOutage                 // the API is down
	causeThrottled              // too many requests
	causeAuth                   // the token is refused
	causes
)

// String names the cause in the log.
func (c cause) String() string {
	return [causes]string{"retry", "outage", "throttled", "auth"}[c]
}

// trial is what is known of the tries of the message at a lane's head.
type trial struct {
	seq         uint64
	attempts    int
	first, last time.Time
	status      int    // of the last answer, 0 if none came
	detail      string // of the last failure
	renewed     bool   // 403 was answered before, and the token is new since
	warned      bool   // the failure is in the log
	clocks      [causes]*backoff.ExponentialBackOff
	cause       cause
	span        trace.Span          // of the message in hand; the zero one while it waits for long
	origin      map[string][]string // names the first of its spans, where there was one
}

// count records a try that was made: err tells how it ended.
func (t *trial) count(began time.Time, status int, err error) {
	t.attempts++
	if t.first.IsZero() {
		t.first = began
	}
	t.last, t.status, t.detail = began, status, ""
	if err == nil {
		return
	}
	t.detail = err.Error()
	if e, ok := errors.AsType[*plaspy.Error](err); ok {
		t.status = e.Status
		if e.Excerpt != "" {
			t.detail = e.Excerpt
		}
	}
}

// tries is what the results and dead letters say of the tries.
func (t *trial) tries() message.Tries {
	return message.Tries{Attempts: t.attempts, First: t.first, Last: t.last, Status: t.status}
}

// delay is how long to wait after a failure, before the API's own wish is
// looked at. Other causes' clocks start again.
func (t *trial) delay(c cause, initial, limit time.Duration) time.Duration {
	if t.cause != c {
		t.clocks[t.cause] = nil
		t.cause = c
	}
	if t.clocks[c] == nil {
		// The library gives up after 15 minutes unless told otherwise; the
		// message's age is what decides here.
		t.clocks[c] = backoff.NewExponentialBackOff(backoff.WithInitialInterval(initial), backoff.WithMaxInterval(limit),
			backoff.WithMultiplier(2), backoff.WithRandomizationFactor(0.5), backoff.WithMaxElapsedTime(0))
	}
	// Its limit is one before jitter.
	return min(t.clocks[c].NextBackOff(), limit)
}

// tried reports whether err is from a request that was sent, or refused for
// what it is; while one waits for a token or the budget, there is no try.
func tried(err error) bool {
	if err == nil {
		return true
	}
	if _, ok := errors.AsType[*plaspy.Error](err); ok {
		return true
	}
	switch plaspy.Classify(err) {
	case plaspy.Canceled, plaspy.Throttled:
		return false
	}
	return true
}

// causeOf maps a failure that is to be tried again to its clock.
func causeOf(err error) cause {
	switch class := plaspy.Classify(err); {
	case class == plaspy.Throttled:
		return causeThrottled
	case class == plaspy.Reauth, class == plaspy.Forbidden:
		return causeAuth
	case plaspy.IsOutage(err):
		return causeOutage
	}
	return causeOther
}

// retryAfter is the API's own wish, lengthened a little so that not everybody
// comes back in the same instant.
func retryAfter(err error) time.Duration {
	e, ok := errors.AsType[*plaspy.Error](err)
	if !ok || !e.HasRetryAfter {
		return 0
	}
	return e.RetryAfter + rand.N(e.RetryAfter/10+1)
}

// sleep waits, and reports false where ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
