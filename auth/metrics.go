package auth

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ok, refused, failed prometheus.Counter
	expiry              prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	refreshes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_token_refreshes_total",
		Help: "Requests for an API token, by result: ok, refused (the key), error (anything else).",
	}, []string{"result"})
	m := &metrics{
		ok:      refreshes.WithLabelValues("ok"),
		refused: refreshes.WithLabelValues("refused"),
		failed:  refreshes.WithLabelValues("error"),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_token_expiry_timestamp_seconds",
			Help: "When the API token held ends, in seconds since 1970; 0 while none is held.",
		}),
	}
	if reg != nil {
		reg.MustRegister(refreshes, m.expiry)
	}
	return m
}
