package trace

import (
	"context"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Poll begins the trace of one poll of a device.
func (t *Tracer) Poll(ctx context.Context) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, "poll", internal)
}

// EndPoll ends a poll's span with its device, its result and the number of events
// that were stored.
func (s Span) EndPoll(device, result string, published int) {
	if s.recording() {
		s.end("", keyDevice.String(device), keyResult.String(result), keyPublished.Int(published))
	}
}

// List begins the trace of a read of the device list, or of another pass over the
// list that was read last.
func (t *Tracer) List(ctx context.Context) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, "list", internal)
}

// Request describes one HTTP request for its span.
type Request struct {
	Method   string
	Template string // its path with names in place of the variable parts
	URL      *url.URL
	Resent   int // earlier attempts of the same request
	Status   int // of the answer; 0 means no answer
}

// Request begins the span of one HTTP request.
func (t *Tracer) Request(ctx context.Context, method, template string) Span {
	if t == nil {
		return Span{}
	}
	_, s := t.start(ctx, method+" "+template, client)
	return s
}

// Sent sets the attributes of a request and its answer. A status of 400 or above
// fails the span. The query of the URL is left out. All attributes are set in one
// call at the end, because each call copies the span's attributes.
func (s Span) Sent(r *Request) {
	if !s.recording() {
		return
	}
	a := [8]attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(r.Method), semconv.URLTemplate(r.Template),
		semconv.URLFull(r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()),
		semconv.ServerAddress(r.URL.Hostname()), semconv.ServerPort(port(r.URL)),
	}
	list := a[:5]
	if r.Resent > 0 {
		list = append(list, semconv.HTTPRequestResendCount(r.Resent))
	}
	if r.Status != 0 {
		list = append(list, semconv.HTTPResponseStatusCode(r.Status))
	}
	if r.Status >= 400 {
		list = append(list, semconv.ErrorTypeKey.String(strconv.Itoa(r.Status)))
		s.span.SetStatus(codes.Error, "")
	}
	s.span.SetAttributes(list...)
}

func port(u *url.URL) int {
	switch text := u.Port(); {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil { // cannot happen: the port of a parsed URL is a number
			return 0
		}
		return n
	case u.Scheme == "http":
		return 80
	}
	return 443
}
