package outbound

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/outbound/track"
)

type metrics struct {
	changed, unchanged, failed prometheus.Counter
	duration, age              prometheus.Histogram
	backwards, conflicts       prometheus.Counter
	backfilled, gapErrors      prometheus.Counter
	refused                    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	polls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_polls_total", Help: "Polls of a last location, by result: changed, unchanged, error.",
	}, []string{"result"})
	m := &metrics{
		changed: polls.WithLabelValues("changed"), unchanged: polls.WithLabelValues("unchanged"), failed: polls.WithLabelValues("error"),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plaspy_bridge_poll_duration_seconds", Help: "How long the API took to answer a poll.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plaspy_bridge_fix_age_seconds", Help: "Age of a location at its publication, by the fix's own time; without back-filled fixes.",
			Buckets:                     []float64{.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}),
		backwards: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_fixes_backwards_total", Help: "Published fixes with an earlier dateTime than the fix before.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_fence_conflicts_total", Help: "Publications that the stream refused because another replica had published or the stream had lost data.",
		}),
		backfilled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_backfilled_total", Help: "Fixes found by back-fill.",
		}),
		gapErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_gap_errors_total", Help: "Gaps that were not read completely: failed requests, the daily quota, or BRIDGE_BACKFILL_MAX.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_events_too_large_total", Help: "Locations and alerts that were not published because the stream can never store them; plaspy_bridge_events_refused_total has all kinds.",
		}),
	}
	if reg != nil {
		reg.MustRegister(polls, m.duration, m.age, m.backwards, m.conflicts, m.backfilled, m.gapErrors, m.refused)
	}
	return m
}

// gauges are the metrics that are read from the pool.
func gauges(p *Pool) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_devices", Help: "Devices in the API's list that are chosen to be polled, by any replica.",
		}, func() float64 { return float64(p.Listed().Devices) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_every_poll_fails", Help: "1 while no poll of any device succeeds although the API answers, else 0.",
		}, func() float64 { return float64(min(p.Widespread().Polls, 1)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_replica_devices", Help: "Devices that this replica polls.",
		}, func() float64 {
			return float64(p.Owned())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_controlled_devices", Help: "Devices of this replica with an entry of live control in force.",
		}, func() float64 { return float64(p.fleet.controls().controlled) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_paused_devices", Help: "Devices of this replica that live control has paused.",
		}, func() float64 { return float64(p.fleet.controls().paused) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_trip_detection_delay_seconds", Help: "Expected median delay from a trip's first fix to the poll that sees it; 0 if no device is known to be parked.",
		}, func() float64 { return p.fleet.stats().TripDetection.Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_interval_impossible", Help: "1 if the request budget does not suffice to poll every device once per interval, or per interval set by live control, else 0.",
		}, func() float64 {
			if p.fleet.stats().Impossible || p.Short() != "" {
				return 1
			}
			return 0
		}),
	}
}

func (m *metrics) fixAge(f *track.Fix) {
	m.age.Observe(max(time.Since(f.Time).Seconds(), 0))
}
