package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/bridge/trace/tracetest"
)

// BenchmarkTracing is BenchmarkPoll with 5% of the polls changed: without
// tracing, with OpenTelemetry's tracer that does nothing, and with traces of
// which that part is taken and sent to a collector that drops them, which is in
// the figures.
func BenchmarkTracing(b *testing.B) {
	sampled := func(ratio float64) func(*testing.B) *trace.Tracer {
		return func(b *testing.B) *trace.Tracer {
			c := tracetest.Start(b)
			c.Instead(func(http.ResponseWriter, *http.Request) {})
			b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
			b.Setenv("OTEL_TRACES_SAMPLER", "traceidratio")
			b.Setenv("OTEL_TRACES_SAMPLER_ARG", fmt.Sprint(ratio))
			t, err := trace.New(b.Context(), trace.Options{}, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := t.Shutdown(context.Background()); err != nil {
					b.Error(err)
				}
			})
			return t
		}
	}
	for _, row := range []struct {
		name   string
		tracer func(*testing.B) *trace.Tracer
	}{
		{"off", func(*testing.B) *trace.Tracer { return nil }},
		{"noop", func(*testing.B) *trace.Tracer { return trace.From(noop.NewTracerProvider()) }},
		{"sampled=0%", sampled(0)},
		{"sampled=5%", sampled(0.05)},
		{"sampled=100%", sampled(1)},
	} {
		b.Run(row.name, func(b *testing.B) { benchBridge(b, 5, row.tracer(b)) })
	}
}
