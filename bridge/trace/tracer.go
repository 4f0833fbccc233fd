package trace

import (
	"context"
	"strconv"

	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	api "go.opentelemetry.io/otel/trace"
)

// scope is the name of the instrumentation scope.
const scope = "plaspy-bridge"

// Tracer makes spans. The nil Tracer is off: its methods do nothing and cost
// nothing. It is safe for concurrent use.
type Tracer struct {
	tracer   api.Tracer
	provider *sdk.TracerProvider // nil if the provider is the caller's
	outlet   *outlet             // nil if the provider is the caller's
	broker   atomic.Pointer[broker]
	shut     sync.Once
}

// From makes a tracer on a provider that the caller shuts down.
func From(p api.TracerProvider) *Tracer { return &Tracer{tracer: tracerOf(p, "")} }

// Shutdown exports the ended spans until ctx is done. It returns an error if some
// are left, which are lost like those that end later. A second call only waits for
// the first.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if t == nil || t.provider == nil {
		return nil
	}
	var err error
	t.shut.Do(func() { err = t.shutdown(ctx) })
	return err
}

func (t *Tracer) shutdown(ctx context.Context) error {
	err := t.provider.Shutdown(ctx)
	t.outlet.giveUp()
	// End an export that is still in flight.
	select {
	case <-t.outlet.done:
	case <-time.After(time.Second):
		err = errors.Join(err, errors.New("exporter did not end"))
	}
	return err
}

// start begins a span. It begins none below a span that is not recorded: all of
// OpenTelemetry's samplers would decide as they did for the root.
func (t *Tracer) start(ctx context.Context, name string, kind []api.SpanStartOption) (context.Context, Span) {
	if parent := api.SpanFromContext(ctx); parent.SpanContext().IsValid() && !parent.SpanContext().IsRemote() && !parent.IsRecording() {
		return ctx, Span{parent}
	}
	ctx, s := t.tracer.Start(ctx, name, kind...)
	return ctx, Span{s}
}

// The options of each kind are made once, to save allocations for each span.
var (
	internal = []api.SpanStartOption{api.WithSpanKind(api.SpanKindInternal)}
	client   = []api.SpanStartOption{api.WithSpanKind(api.SpanKindClient)}
	producer = []api.SpanStartOption{api.WithSpanKind(api.SpanKindProducer)}
	consumer = []api.SpanStartOption{api.WithSpanKind(api.SpanKindConsumer)}
	server   = []api.SpanStartOption{api.WithSpanKind(api.SpanKindServer)}
)

// Span is one step of a trace. The methods of the zero Span do nothing. A Span is
// ended once; later calls have no effect.
type Span struct{ span api.Span }

// On reports whether this is not the zero Span. The span need not be recorded: it
// may exist only to pass its context on.
func (s Span) On() bool { return s.span != nil }

// recording reports whether the span's attributes are kept.
func (s Span) recording() bool { return s.span != nil && s.span.IsRecording() }

// Fail marks the span as failed, with a word from a small set. It does nothing if
// the word is empty.
func (s Span) Fail(failure string) {
	if failure != "" && s.recording() {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(failure))
		s.span.SetStatus(codes.Error, "")
	}
}

// In returns a context with the span in it, or ctx itself for the zero Span.
func (s Span) In(ctx context.Context) context.Context {
	if s.span == nil {
		return ctx
	}
	return api.ContextWithSpan(ctx, s.span)
}

// End ends the span; failure is as in Fail.
func (s Span) End(failure string) {
	if s.recording() {
		s.Fail(failure)
		s.span.End()
	}
}

// end ends the span with more attributes.
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

// EndQuery ends the span of a request with the code of its answer, an HTTP status.
func (s Span) EndQuery(code int) {
	if !s.recording() {
		return
	}
	failure := ""
	if code >= 500 || code == 429 {
		failure = strconv.Itoa(code)
	}
	text := strconv.Itoa(code)
	s.end(failure, semconv.RPCResponseStatusCode(text), keyResult.String(text))
}

// EndProcess ends the span of an inbound message with its result and the number of
// attempts.
func (s Span) EndProcess(result string, attempts int, failure string) {
	if s.recording() {
		s.end(failure, keyResult.String(result), keyAttempts.Int(attempts))
	}
}
