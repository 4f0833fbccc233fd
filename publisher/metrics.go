package publisher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type kind int

const (
	kindLocation kind = iota
	kindAlert
	kindDevice
	kinds
)

type metrics struct {
	published [kinds]prometheus.Counter
	refused   [kinds]prometheus.Counter
	errors    prometheus.Counter
	duration  prometheus.Histogram
	pending   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	published := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_published_total", Help: "Events stored in the events stream, by kind.",
	}, []string{"kind"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_events_refused_total",
		Help: "Events that can never be stored, because they or their headers are too large for the stream or it refuses them, by kind.",
	}, []string{"kind"})
	m := metrics{
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_publish_errors_total", Help: "Tries to store an event that failed; each is tried again.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plaspy_bridge_publish_duration_seconds", Help: "From an event's first try to its acknowledgement.",
			Buckets:                     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_publish_pending", Help: "Chains of events that wait for the stream's acknowledgement.",
		}),
	}
	for k, label := range map[kind]string{kindLocation: "location", kindAlert: "alert", kindDevice: "device"} {
		m.published[k] = published.WithLabelValues(label)
		m.refused[k] = refused.WithLabelValues(label)
	}
	if reg != nil {
		reg.MustRegister(published, refused, m.errors, m.duration, m.pending)
	}
	return m
}

func (m *metrics) stored(e *Event) {
	m.published[e.kind].Inc()
	m.duration.Observe(time.Since(e.sent).Seconds())
}
