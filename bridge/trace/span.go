package trace

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	api "go.opentelemetry.io/otel/trace"
)

// Span is one step of a trace. The zero Span is none: its methods do nothing. A
// Span is ended once; what is done to it later has no effect.
type Span struct{ span api.Span }

// On reports whether the span is one, if only to pass its context on.
func (s Span) On() bool { return s.span != nil }

// recording reports whether anything said of the span is kept.
func (s Span) recording() bool { return s.span != nil && s.span.IsRecording() }

// Fail marks the span as failed, by a word of a small set. Empty: it is not.
func (s Span) Fail(failure string) {
	if failure != "" && s.recording() {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(failure))
		s.span.SetStatus(codes.Error, "")
	}
}

// In gives a context with the span in it: ctx itself where there is none.
func (s Span) In(ctx context.Context) context.Context {
	if s.span == nil {
		return ctx
	}
	return api.ContextWithSpan(ctx, s.span)
}

// End ends the span; failure is as with Fail.
func (s Span) End(failure string) {
	if s.recording() {
		s.Fail(failure)
		s.span.End()
	}
}

// end ends the span with what is known of it only now.
func (s Span) end(failure string, more ...attribute.KeyValue) {
	s.span.SetAttributes(more...)
	s.End(failure)
}

// Names of the bridge's own attributes.
const (
	keyDevice    = attribute.Key("plaspy.device.id")
	keyResult    = attribute.Key("plaspy.result")
	keyPublished = attribute.Key("plaspy.published")
	keySequence  = attribute.Key("plaspy.stream.sequence")
	keyAttempts  = attribute.Key("plaspy.attempts")
)

// EndQuery ends the span of a request: the code of its answer, as HTTP has them.
func (s Span) EndQuery(code int) {
	if !s.recording() {
		return
	}
	failure := ""
	if code >= 500 || code == 429 {
		failure = strconv.Itoa(code)
	}
	s.end(failure, keyResult.String(strconv.Itoa(code)))
}

// EndProcess ends the span of an inbound message: what became of it, and how
// often it was posted.
func (s Span) EndProcess(result string, attempts int, failure string) {
	if s.recording() {
		s.end(failure, keyResult.String(result), keyAttempts.Int(attempts))
	}
}
