package trace

import (
	"context"
	"errors"
	"sync"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// scope is the name of what makes the spans.
const scope = "plaspy-bridge"

// Tracer makes spans. The nil Tracer is off: its methods do nothing and cost
// nothing. It is safe for concurrent use.
type Tracer struct {
	tracer   api.Tracer
	provider *sdk.TracerProvider // nil where the provider is somebody else's
	outlet   *outlet             // likewise
	shut     sync.Once
}

// From makes a tracer on a provider that somebody else shuts down.
func From(p api.TracerProvider) *Tracer { return &Tracer{tracer: tracerOf(p, "")} }

// Shutdown sends what has ended to the collector, until the context ends, and
// gives the rest up; spans that end later are lost. Its error tells that spans
// were given up. A second call waits for the first and does nothing.
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
	// What was under way at the end of the context ends now.
	select {
	case <-t.outlet.done:
	case <-time.After(time.Second):
		err = errors.Join(err, errors.New("exporter does not end"))
	}
	return err
}

// start begins a span. Under a span that is not recorded it begins none: all of
// OpenTelemetry's samplers would decide as they did for the root.
func (t *Tracer) start(ctx context.Context, name string, kind []api.SpanStartOption) (context.Context, Span) {
	if parent := api.SpanFromContext(ctx); parent.SpanContext().IsValid() && !parent.SpanContext().IsRemote() && !parent.IsRecording() {
		return ctx, Span{parent}
	}
	ctx, s := t.tracer.Start(ctx, name, kind...)
	return ctx, Span{s}
}

// The options of each kind, made once: a span's own would be an allocation or
// two each time.
var (
	internal = []api.SpanStartOption{api.WithSpanKind(api.SpanKindInternal)}
	client   = []api.SpanStartOption{api.WithSpanKind(api.SpanKindClient)}
	producer = []api.SpanStartOption{api.WithSpanKind(api.SpanKindProducer)}
	consumer = []api.SpanStartOption{api.WithSpanKind(api.SpanKindConsumer)}
	server   = []api.SpanStartOption{api.WithSpanKind(api.SpanKindServer)}
)
