package plaspy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ErrNoBudget is returned instead of waiting where a query would exceed its part of the budget, or its
// deadline ends before the budget has room.
var ErrNoBudget = errors.New("no room in the request budget")

// ErrTooLarge is the cause of an [*Error] about an answer that is larger than the endpoint's bound (4 MiB for
// locations and alerts): a narrower question may be answered.
var ErrTooLarge = errors.New("answer too large")

var (
	errTimeout = errors.New("no answer in time")
	errRefused = errors.New("the API says that it did not succeed")
)

// Error is a request that was sent, or should have been, and did not succeed. Its text holds no secret.
type Error struct {
	Endpoint string // as in the metric api_requests_total: last_location, locations, ...
	Status   int    // of the answer; 0 if none came
	// Foreign means that something in front of the API answered, such as a proxy with a page of its own: the
	// body is not a JSON object with success or error, or the status is 3xx. It says nothing about the request.
	Foreign bool
	// RetryAfter is how long the API asks not to be sent requests, at most a day; 0 unless HasRetryAfter.
	RetryAfter    time.Duration
	HasRetryAfter bool
	// DeviceOnly means that a 429 concerns this device alone, while others are answered: the caller holds the
	// device back. Any other 429 has lowered or stopped the budget, which holds back all requests.
	DeviceOnly bool
	Message    string // the reason: the API's own text if it gave one. Printable, at most 1 KiB
	Excerpt    string // the answer's beginning, printable, at most 1 KiB; empty if nothing was read
	Err        error  // the cause; may be nil

	transport    bool // no complete answer came
	tokenRefused bool // success is false, and the text says that the token is expired or invalid ...
	reauth       bool // ... and it has to be tried with another one
}

// Error returns endpoint, status and the reason.
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %s", e.Endpoint, e.Message)
	}
	return fmt.Sprintf("%s: status %d: %s", e.Endpoint, e.Status, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the API did not answer within [Options].Timeout.
func (e *Error) Timeout() bool { return errors.Is(e.Err, errTimeout) }

// IDError is a device id that cannot be sent to the API as it is.
type IDError struct{ ID, Reason string }

// Error names the id and the reason.
func (e *IDError) Error() string { return fmt.Sprintf("device id %.100q %s", e.ID, e.Reason) }

// Class says how to handle a failure.
type Class int

// The classes, from [Classify].
const (
	Retry     Class = iota // try again after a backoff; also everything that is unknown
	Throttled              // try again when the budget allows it, and not before Error.RetryAfter
	Reauth                 // the token is refused, not the request: try again later
	Forbidden              // 403 of the API: final if it comes again after one try with a new token
	Reject                 // final: the API itself refused the request
	Foreign                // something in front of the API answered: try again after a backoff
	Canceled               // the caller's context ended; says nothing about the API
)

// String returns the class in lower case, fit for a log line or a label.
func (c Class) String() string {
	switch c {
	case Throttled:
		return "throttled"
	case Reauth:
		return "reauth"
	case Forbidden:
		return "forbidden"
	case Reject:
		return "reject"
	case Foreign:
		return "foreign"
	case Canceled:
		return "canceled"
	}
	return "retry"
}

// Classify returns the class of a failure of this package; err is not nil. Only the API itself can refuse a
// request for good. Unknown failures are to be tried again.
func Classify(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok && e.Status != 0 && !e.transport {
		return classifyAnswer(e)
	}
	if _, ok := errors.AsType[*IDError](err); ok {
		return Reject
	}
	switch {
	case errors.Is(err, ErrNoBudget):
		return Throttled
	case errors.Is(err, errTimeout):
		return Retry
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Canceled
	}
	return Retry
}

func classifyAnswer(e *Error) Class {
	switch s := e.Status; {
	case s == http.StatusUnauthorized, e.reauth:
		return Reauth
	case s == http.StatusTooManyRequests, s == http.StatusServiceUnavailable && e.HasRetryAfter:
		return Throttled
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s >= 500:
		return Retry
	case e.Foreign, s >= 300 && s <= 399:
		return Foreign
	case s == http.StatusForbidden:
		return Forbidden
	case s >= 400, errors.Is(e.Err, errRefused):
		return Reject
	}
	return Retry
}

// IsOutage reports whether err shows the API to be down: it could not be reached, its answer broke off, or
// its status is 5xx. A foreign answer may mean the same; see [Circuit].
func IsOutage(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && Classify(err) != Canceled && (e.transport || e.Status >= 500)
}

// IsGone reports whether an answer, its author aside, says that there is no such device. If the class is
// Foreign, only the device list can confirm it.
func IsGone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && !e.transport && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}
