package trace

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxHeld is how many ended spans may wait for the collector, about a
	// kilobyte each.
	maxHeld = 8192
	// maxReason bounds the logged text of a fault.
	maxReason = 512
)

// outlet is the exporter as the rest of the process meets it: its faults are
// counted and logged once, its spans are bounded, and it can be cut off.
type outlet struct {
	next    sdk.SpanExporter
	secrets []string // not to be shown
	log     *slog.Logger
	metrics *metrics

	held   atomic.Int64 // spans that wait or are on their way
	life   context.Context
	giveUp context.CancelFunc
	done   chan struct{} // closed when the exporter has ended
	ended  sync.Once

	// Owned by the goroutine that exports; there is one at a time.
	failing bool
	lost    int // spans since it began to fail
}

func newOutlet(next sdk.SpanExporter, secrets []string, log *slog.Logger, m *metrics) *outlet {
	o := &outlet{next: next, secrets: secrets, log: log, metrics: m, done: make(chan struct{})}
	o.life, o.giveUp = context.WithCancel(context.Background())
	return o
}

// ExportSpans sends a batch. It returns nil whatever happens: the SDK would give
// an error to a handler that the whole process shares.
func (o *outlet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.life, cancel)()
	err := o.life.Err() // spans that were given up are not even encoded
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

// Shutdown ends the exporter; the SDK calls it last, from the goroutine that
// exports.
func (o *outlet) Shutdown(ctx context.Context) error {
	defer o.ended.Do(func() { close(o.done) })
	err := o.next.Shutdown(ctx)
	if o.failing {
		return errors.Join(err, errLost)
	}
	return err
}

// errLost reports that the collector did not take the last spans.
var errLost = errors.New("the collector did not take the last spans")

// reason is an error as an operator may read it: one line, bounded, without the
// headers, which a collector may have sent back in its answer.
func (o *outlet) reason(err error) string {
	text := err.Error()
	for _, secret := range o.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if text = strings.TrimSpace(text); len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// queue returns the processor of ended spans, the SDK's, which sends them in
// batches.
func (o *outlet) queue() sdk.SpanProcessor {
	// It is never full itself: its content is bounded, and counted, before.
	return bounded{sdk.NewBatchSpanProcessor(o, sdk.WithMaxQueueSize(maxHeld)), o}
}

// bounded drops spans if enough are waiting.
type bounded struct {
	sdk.SpanProcessor
	outlet *outlet
}

// OnEnd takes a span, or drops it. It does not block.
func (b bounded) OnEnd(s sdk.ReadOnlySpan) {
	if b.outlet.held.Add(1) > maxHeld {
		b.outlet.held.Add(-1)
		b.outlet.metrics.dropped.Inc()
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// metrics count spans by result.
type metrics struct {
	exported, failed, dropped prometheus.Counter
}

// newMetrics registers them if reg is not nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_trace_spans_total",
		Help: "Spans that ended, by result: exported, failed (the collector did not take them), dropped (no room in the queue).",
	}, []string{"result"})
	if reg != nil {
		reg.MustRegister(spans)
	}
	return &metrics{
		exported: spans.WithLabelValues("exported"), failed: spans.WithLabelValues("failed"), dropped: spans.WithLabelValues("dropped"),
	}
}
