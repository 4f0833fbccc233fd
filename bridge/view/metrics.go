package view

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dropped, refused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, v *View) *metrics {
	m := &metrics{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_view_dropped_total", Help: "Live views that were disconnected because they did not read their frames in time.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_view_refused_total", Help: "Live views that were refused because too many were open.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.dropped, m.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_view_clients", Help: "Open live views.",
		}, func() float64 {
			v.mu.Lock()
			defer v.mu.Unlock()
			return float64(len(v.clients))
		}))
	}
	return m
}
