package trace

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	api "go.opentelemetry.io/otel/trace"
)

// Header names of W3C Trace Context, all lower case. With the prefix ce- they are
// the attributes of CloudEvents' extension for distributed tracing.
const (
	HeaderParent = "traceparent"
	HeaderState  = "tracestate"
	prefixEvent  = "ce-"
)

// renamed is the name to which nats-server 2.11.x and 2.12.0 to 2.12.11 change
// traceparent if the account has msg_trace.
const renamed = "Xraceparent"

// Inject adds the span's context to headers. It does nothing for the zero Span.
func (s Span) Inject(header map[string][]string) {
	if s.span == nil {
		return
	}
	// Remove all spellings, so that there are never two.
	for spelt := range header {
		switch name := strings.TrimPrefix(strings.ToLower(spelt), prefixEvent); name {
		case HeaderParent, HeaderState, strings.ToLower(renamed):
			delete(header, spelt)
		}
	}
	s.inject(func(name, value string) { header[name] = []string{value} })
}

// inject sets traceparent and tracestate, also as CloudEvents attributes.
func (s Span) inject(set func(name, value string)) {
	if s.span == nil {
		return
	}
	ctx := api.ContextWithSpanContext(context.Background(), s.span.SpanContext())
	propagation.TraceContext{}.Inject(ctx, setter(set))
}

// setter is the carrier for injecting.
type setter func(name, value string)

// Get implements [propagation.TextMapCarrier]; injecting does not use it.
func (setter) Get(string) string { return "" }

// Keys implements [propagation.TextMapCarrier]; injecting does not use it.
func (setter) Keys() []string { return nil }

// Set sets both headers.
func (s setter) Set(name, value string) {
	s(name, value)
	s(prefixEvent+name, value)
}

// carrier is the carrier for extracting. It ignores the case of header names,
// because NATS keeps it and the HTTP libraries of producers write Traceparent.
type carrier struct {
	header map[string][]string
	parent string // name of the header with traceparent
	prefix string // of the name of the header with tracestate
}

// Get returns the first value of a header, or nothing.
func (c carrier) Get(name string) string {
	if name == HeaderParent {
		name = c.parent
	} else {
		name = c.prefix + name
	}
	if v := c.header[name]; len(v) > 0 {
		return v[0]
	}
	for spelt, v := range c.header {
		if len(v) > 0 && strings.EqualFold(spelt, name) {
			return v[0]
		}
	}
	return ""
}

// Set implements [propagation.TextMapCarrier]; extracting does not use it.
func (carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier]; extracting does not use it.
func (carrier) Keys() []string { return nil }

// extract returns a context with the remote span of the headers, from the first
// valid one of traceparent, ce-traceparent and Xraceparent.
func extract(ctx context.Context, header map[string][]string) context.Context {
	if len(header) == 0 {
		return ctx
	}
	for _, c := range []carrier{
		{header, HeaderParent, ""}, {header, prefixEvent + HeaderParent, prefixEvent}, {header, renamed, ""},
	} {
		if with := (propagation.TraceContext{}).Extract(ctx, c); api.SpanContextFromContext(with).IsRemote() {
			return with
		}
	}
	return ctx
}
