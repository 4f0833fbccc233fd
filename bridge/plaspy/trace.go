package plaspy

import (
	"context"
	"errors"
	"net/http"
	"syscall"

	"plaspy-bridge/bridge/trace"
)

// templates are the endpoints' paths as spans name them.
var templates = [epCount]string{
	epToken: "/api/Auth/Token", epDevices: "/api/devices", epDevice: "/api/devices/{id}", epGroups: "/api/groups",
	epLastLocation: "/api/devices/{id}/lastLocation", epLocations: "/api/devices/{id}/locations", epAlerts: "/api/devices/{id}/alerts",
}

// beginSpan begins the span of one send. Nothing of it is sent to the API.
func (w *wire) beginSpan(req *http.Request, ep endpoint, c *call) trace.Span {
	span := w.trace.Request(req.Context(), req.Method, templates[ep])
	if c != nil {
		c.span = span
	}
	return span
}

// sent notes how a send was answered; status 0 is not at all. The call ends the
// span with the answer's body; that of a request for a token, which has no call,
// ends here with the answer's head.
func (w *wire) sent(span trace.Span, req *http.Request, ep endpoint, c *call, status int) {
	if !span.On() {
		return
	}
	r := trace.Request{Method: req.Method, Template: templates[ep], URL: req.URL, Status: status}
	if c != nil {
		r.Resent = c.sends - 1
	}
	span.Sent(&r)
	if c == nil && status != 0 {
		span.End("")
	}
}

// failureWord is why no complete answer came, in a word.
func failureWord(ctx context.Context, err error) string {
	switch {
	case errors.Is(context.Cause(ctx), errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	}
	return "transport"
}
