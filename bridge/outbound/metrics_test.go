package outbound

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/outbound/schedule"
)

// eager is a registry that reads metrics as soon as they are registered, as the exporter of OpenTelemetry may.
type eager struct{ *prometheus.Registry }

func (e eager) MustRegister(all ...prometheus.Collector) {
	e.Registry.MustRegister(all...)
	if _, err := e.Gather(); err != nil {
		panic(err)
	}
}

func TestMetricsReadAtOnce(t *testing.T) {
	p := parts(newFakeAPI(), nil, schedule.NewFixed(interval))
	p.Registry = eager{prometheus.NewRegistry()}
	New(options(), p)
}
