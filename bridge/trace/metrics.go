package trace

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"plaspy-bridge/auth/redact"
)

// MetricsEndpoint returns the URL of the collector of metrics from the environment,
// which may contain a password, or OpenTelemetry's default. It is empty unless
// OTEL_METRICS_EXPORTER names otlp.
func MetricsEndpoint() string {
	names := strings.FieldsFunc(os.Getenv("OTEL_METRICS_EXPORTER"), func(r rune) bool { return r == ',' || r == ' ' })
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || !slices.Contains(names, "otlp") {
		return ""
	}
	local := "http://localhost:4318"
	if overGRPC("METRICS") {
		local = "http://localhost:4317"
	}
	return cmp.Or(variable("METRICS", "ENDPOINT"), local)
}

// Metrics sends Prometheus metrics to an OpenTelemetry collector, every minute or
// every OTEL_METRIC_EXPORT_INTERVAL milliseconds. The nil Metrics sends nothing.
type Metrics struct {
	provider *metric.MeterProvider
}

// NewMetrics makes a Metrics of what is gathered, or nil if [MetricsEndpoint] is
// empty. Its error wraps a [*FileError] if a certificate file is the cause.
func NewMetrics(ctx context.Context, o Options, log *slog.Logger, from prometheus.Gatherer) (*Metrics, error) {
	if MetricsEndpoint() == "" {
		return nil, nil
	}
	attributes, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	var next metric.Exporter
	if overGRPC("METRICS") {
		next, err = otlpmetricgrpc.New(ctx)
	} else {
		next, err = otlpmetrichttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start exporter of metrics: %w", err)
	}
	out := &meterOutlet{Exporter: next, secrets: secrets(), log: log}
	// The reader has no other way to report that it could not collect, such as at a
	// stop that takes too long. The handler is the process's; its default writes to
	// standard error.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Debug("metrics not collected", "err", out.secrets.Text(err.Error(), maxReason))
	}))
	reader := metric.NewPeriodicReader(out,
		metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(from))))
	return &Metrics{metric.NewMeterProvider(metric.WithResource(attributes), metric.WithReader(reader))}, nil
}

// Shutdown sends the metrics once more, until ctx is done. Its error says that this
// took too long.
func (m *Metrics) Shutdown(ctx context.Context) error {
	if m == nil {
		return nil
	}
	return m.provider.Shutdown(ctx)
}

// meterOutlet wraps the exporter, and logs a failure once when it starts and once
// when it ends.
type meterOutlet struct {
	metric.Exporter
	secrets *redact.Secrets // never logged
	log     *slog.Logger

	failing bool // of the goroutine that exports; there is one at a time
}

// Export sends all metrics. It always returns nil, because the SDK would pass an
// error to a handler that the whole process shares.
func (o *meterOutlet) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	err := o.Exporter.Export(ctx, m)
	switch {
	case err != nil && !o.failing:
		o.log.Warn("metrics export failed, retrying at the next interval", "err", o.secrets.Text(err.Error(), maxReason))
	case err == nil && o.failing:
		o.log.Info("metrics export works again")
	}
	o.failing = err != nil
	return nil
}

// Observe adds a value to a histogram, with the trace as its exemplar if the span is
// recorded.
func (s Span) Observe(h prometheus.Histogram, v float64) {
	if e, ok := h.(prometheus.ExemplarObserver); ok && s.recording() {
		e.ObserveWithExemplar(v, prometheus.Labels{"trace_id": s.span.SpanContext().TraceID().String()})
		return
	}
	h.Observe(v)
}
