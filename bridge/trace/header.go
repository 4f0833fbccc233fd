package trace

import (
	"context"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	api "go.opentelemetry.io/otel/trace"
)

// Header names of W3C Trace Context, level 1, all lower case.
const (
	HeaderParent = "traceparent"
	HeaderState  = "tracestate"
)

// Inject has headers carry the span's context. It does nothing for the zero Span.
func (s Span) Inject(header map[string][]string) {
	if s.span == nil {
		return
	}
	drop(header, HeaderParent)
	drop(header, HeaderState)
	s.inject(func(name, value string) { header[name] = []string{value} })
}

// drop deletes a header in every spelling, so that there are never two.
func drop(header map[string][]string, name string) {
	for spelt := range header {
		if strings.EqualFold(spelt, name) {
			delete(header, spelt)
		}
	}
}

func (s Span) inject(set func(name, value string)) {
	c := s.span.SpanContext()
	if !c.IsValid() {
		return
	}
	set(HeaderParent, traceparent(c))
	if c.TraceState().Len() > 0 {
		set(HeaderState, c.TraceState().String())
	}
}

// traceparent spells a context as the propagator of OpenTelemetry does, which
// wants it inside a context.Context.
func traceparent(c api.SpanContext) string {
	trace, span := c.TraceID(), c.SpanID()
	var b [55]byte
	copy(b[:], "00-")
	hex.Encode(b[3:], trace[:])
	b[35] = '-'
	hex.Encode(b[36:], span[:])
	b[52] = '-'
	hex.Encode(b[53:], []byte{byte(c.TraceFlags() & (api.FlagsSampled | api.FlagsRandom))})
	return string(b[:])
}

// carrier reads headers whose names are in any case: NATS keeps the spelling,
// and HTTP libraries that producers use spell the name Traceparent.
type carrier map[string][]string

// Get returns the first value of a header, or nothing.
func (c carrier) Get(name string) string {
	if v := c[name]; len(v) > 0 {
		return v[0]
	}
	for spelt, v := range c {
		if len(v) > 0 && strings.EqualFold(spelt, name) {
			return v[0]
		}
	}
	return ""
}

// Set is what [propagation.TextMapCarrier] has beside Get; extracting does not
// use it.
func (c carrier) Set(name, value string) { c[name] = []string{value} }

// Keys is likewise.
func (c carrier) Keys() []string { return nil }

// extract gives a context with the span that headers name as its remote one. What
// is not a span's context counts as if it were not there.
func extract(ctx context.Context, header map[string][]string) context.Context {
	if len(header) == 0 {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, carrier(header))
}
