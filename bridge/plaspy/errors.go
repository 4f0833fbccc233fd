package plaspy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// ErrNoBudget is returned instead of waiting if a query would exceed its part of the budget, or its
// deadline ends before the budget has room.
var ErrNoBudget = errors.New("no room in the request budget")

// ErrTooLarge is the cause of an [*Error] about an answer that is larger than the endpoint's bound (4 MiB for
// locations and alerts): a narrower question may be answered.
var ErrTooLarge = errors.New("answer too large")

var (
	errTimeout = errors.New("no answer in time")
	errRefused = errors.New("success is false")
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

// Class is the way to handle a failure.
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

// envelope is the part of an answer around its payload.
type envelope struct {
	success    flag
	message    string // error, if it is a string
	payload    []byte // value of the member asked for; nil if absent
	usage      int    // apiUsage; 0 if absent or no integer
	dailyUsage int
	own        bool // success or error is there: the API itself answered
}

// refusesToken reports whether the API says, in place of a 401, that it does not take the token. Nothing
// but the text shows it.
func (e envelope) refusesToken() bool {
	if e.success != no {
		return false
	}
	text := strings.ToLower(e.message)
	contains := func(word string) bool { return strings.Contains(text, word) }
	return slices.ContainsFunc([]string{"token", "jwt"}, contains) && slices.ContainsFunc([]string{
		"expired", "has expir", "invalid", "not valid", "no longer valid", "revoked",
		"expirad", "vencid", "caducad", "inválid", "no válid", "no es válid", "revocad",
	}, contains)
}

type flag int

const (
	absent flag = iota // or null
	yes
	no
	misfit
)

// openEnvelope walks an answer's outermost members. The error is worded for an operator.
func openEnvelope(body []byte, payload string) (env envelope, err error) {
	err = rawjson.Members(body, func(key, value []byte) bool {
		switch string(key) {
		case "success":
			env.own = true
			env.success = readFlag(value)
		case "error":
			env.own = true
			text, _ := rawjson.Unquote(value)
			env.message = string(text)
		case "apiUsage":
			env.usage = readInt(value)
		case "apiDailyUsage":
			env.dailyUsage = readInt(value)
		default:
			if string(key) == payload {
				env.payload = value
			}
		}
		return true
	})
	if err == nil {
		return env, nil
	}
	text := bytes.TrimSpace(body)
	switch {
	case len(text) == 0:
		return env, errors.New("empty answer")
	case text[0] == '<':
		return env, errors.New("answer is HTML or XML, not JSON")
	}
	return env, fmt.Errorf("answer is not a JSON object: %w", err)
}

func readFlag(value []byte) flag {
	switch string(value) {
	case "true":
		return yes
	case "false":
		return no
	case "null":
		return absent
	}
	return misfit
}

func readInt(value []byte) int {
	n, err := strconv.Atoi(string(value)) // does not allocate: the compiler sees that Atoi keeps nothing
	if err != nil {
		return 0
	}
	return n
}

// open judges a 2xx answer with the named payload. If `success` is
// missing, a payload makes up for it: its absence is documented nowhere, but with the payload there nothing
// is in doubt.
func (c *Client) open(r *request, p *reply, payload string) (envelope, error) {
	env, err := openEnvelope(p.body, payload)
	if err == nil && (env.own || env.payload != nil) {
		c.answered(p)
		c.noteUsage(p, env)
	}
	switch {
	case err != nil:
		return env, c.bad(r, p, err.Error(), err)
	case env.success == no:
		message := env.message
		if message == "" {
			message = "success is false"
		}
		e := c.bad(r, p, message, errRefused)
		e.tokenRefused = env.refusesToken()
		return env, e
	case env.success == misfit:
		return env, c.bad(r, p, "success is neither true nor false", nil)
	case env.success == absent && env.payload == nil && payload != "":
		return env, c.bad(r, p, "answer has neither success nor "+payload, nil)
	}
	return env, nil
}

// another reports whether a request is to be sent again after an answer with a text that refuses its token. A message
// that two tokens were refused for is judged by the answer as it is.
func (c *Client) another(r *request, t auth.Token, e *Error, try int) bool {
	if c.refused.twice(r.key, t) || try > 0 {
		return false
	}
	if c.opt.Tokens.Renew(t) {
		return true
	}
	e.reauth = true
	return false
}

// refusedTokens remembers which token was refused for a message.
type refusedTokens struct {
	mu    sync.Mutex
	first map[string]auth.Token // by Idempotency-Key
}

// twice notes that t was refused, and reports whether another token was before.
func (r *refusedTokens) twice(key string, t auth.Token) bool {
	if key == "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first, known := r.first[key]
	if !known {
		if r.first == nil || len(r.first) >= 1000 {
			r.first = map[string]auth.Token{}
		}
		r.first[key] = t
	}
	return known && first != t
}

// forget drops a message that has come to its end.
func (r *refusedTokens) forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.first, key)
}
