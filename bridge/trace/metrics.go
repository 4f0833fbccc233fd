package trace

import "github.com/prometheus/client_golang/prometheus"

// metrics count spans by what became of them.
type metrics struct {
	exported, failed, dropped prometheus.Counter
}

// newMetrics registers them where reg is not nil.
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
