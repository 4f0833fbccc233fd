package query

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
)

// failure is an answer that is an error.
type failure struct {
	code int // an HTTP status
	text string
}

// Error returns code and text.
func (f *failure) Error() string { return strconv.Itoa(f.code) + " " + f.text }

// codeElsewhere is not sent: another replica answers.
const codeElsewhere = 0

// Refuse returns an error for [Options.Poll] that is answered with an HTTP status as
// its code.
func Refuse(code int, text string) error { return &failure{code, text} }

// Elsewhere returns an error for [Options.Poll] that is not answered, because
// another replica polls the device and answers.
func Elsewhere() error { return &failure{codeElsewhere, "another replica polls this device"} }

// judge finds the code of an error.
func judge(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if _, ok := errors.AsType[*plaspy.IDError](err); ok {
		return &failure{http.StatusBadRequest, err.Error()}
	}
	if errors.Is(err, plaspy.ErrNoBudget) {
		return &failure{http.StatusTooManyRequests, "the request budget has no room for queries"}
	}
	if e, ok := errors.AsType[*auth.Error](err); ok && e.Refused {
		return &failure{http.StatusServiceUnavailable, "there is no token: the API refuses the key"}
	}
	e, ok := errors.AsType[*plaspy.Error](err)
	switch {
	case ctx.Err() != nil, ok && e.Timeout():
		return &failure{http.StatusGatewayTimeout, "the API did not answer in time"}
	case ok && e.Status >= 300:
		return &failure{e.Status, e.Message}
	case ok: // no answer, or one that makes no sense
		return &failure{http.StatusBadGateway, e.Message}
	}
	return &failure{http.StatusInternalServerError, "the bridge could not ask the API"}
}
