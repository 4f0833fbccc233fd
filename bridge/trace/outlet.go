package trace

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"plaspy-bridge/auth/redact"
)

const (
	// maxHeld limits the ended spans that wait for the collector, about a kilobyte
	// each.
	maxHeld = 8192
	// maxReason limits the logged text of an error, in bytes.
	maxReason = 512
)

// outlet wraps the exporter. It counts failures and logs each once, limits the
// number of spans, and can be cancelled.
type outlet struct {
	next    sdk.SpanExporter
	secrets *redact.Secrets // never logged
	log     *slog.Logger
	metrics *metrics

	held   atomic.Int64 // spans that wait or are in flight
	life   context.Context
	giveUp context.CancelFunc
	done   chan struct{} // closed when the exporter has ended
	ended  sync.Once

	// Owned by the goroutine that exports; there is one at a time.
	failing bool
	lost    int // spans since exports began to fail
}

func newOutlet(next sdk.SpanExporter, secrets *redact.Secrets, log *slog.Logger, m *metrics) *outlet {
	o := &outlet{next: next, secrets: secrets, log: log, metrics: m, done: make(chan struct{})}
	o.life, o.giveUp = context.WithCancel(context.Background())
	return o
}

// ExportSpans sends a batch. It always returns nil, because the SDK would pass an
// error to a handler that the whole process shares.
func (o *outlet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.life, cancel)()
	err := o.life.Err() // after a cancelled shutdown spans are not even encoded
	if err == nil {
		err = o.next.ExportSpans(ctx, spans)
	}
	o.held.Add(-int64(len(spans)))
	if err == nil {
		o.metrics.exported.Add(float64(len(spans)))
		if o.failing {
			o.log.Info("trace export works again", "count", o.lost)
			o.failing, o.lost = false, 0
		}
		return nil
	}
	o.metrics.failed.Add(float64(len(spans)))
	o.lost += len(spans)
	if !o.failing {
		o.failing = true
		o.log.Warn("trace export failed, retrying with the next batch", "err", o.reason(err))
	}
	return nil
}

// Shutdown ends the exporter. The SDK calls it last, from the exporting goroutine.
func (o *outlet) Shutdown(ctx context.Context) error {
	defer o.ended.Do(func() { close(o.done) })
	err := o.next.Shutdown(ctx)
	if o.failing {
		return errors.Join(err, errLost)
	}
	return err
}

// errLost reports that the last spans were not exported.
var errLost = errors.New("the last spans were not exported")

// reason returns the text of an error for the log: one line of limited length,
// without secrets, which the collector's answer may repeat.
func (o *outlet) reason(err error) string { return o.secrets.Text(err.Error(), maxReason) }

// queue returns the SDK's processor, which sends ended spans in batches.
func (o *outlet) queue() sdk.SpanProcessor {
	// The SDK's queue is never full, because outlet limits the number of spans.
	return bounded{sdk.NewBatchSpanProcessor(o, sdk.WithMaxQueueSize(maxHeld)), o}
}

// bounded drops spans if enough are waiting.
type bounded struct {
	sdk.SpanProcessor
	outlet *outlet
}

// OnEnd queues or drops a span. It does not block.
func (b bounded) OnEnd(s sdk.ReadOnlySpan) {
	if b.outlet.held.Add(1) > maxHeld {
		b.outlet.held.Add(-1)
		b.outlet.metrics.dropped.Inc()
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// metrics counts spans by result.
type metrics struct {
	exported, failed, dropped prometheus.Counter
}

// newMetrics makes the metrics, and registers them if reg is not nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_trace_spans_total",
		Help: "Ended spans, by result: exported, failed (the export failed), dropped (the queue was full).",
	}, []string{"result"})
	if reg != nil {
		reg.MustRegister(spans)
	}
	return &metrics{
		exported: spans.WithLabelValues("exported"), failed: spans.WithLabelValues("failed"), dropped: spans.WithLabelValues("dropped"),
	}
}
