package plaspy

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// endpoint is one of the API's, as the metric's label has it. The set is closed.
type endpoint int

const (
	epToken endpoint = iota
	epDevices
	epDevice
	epGroups
	epLastLocation
	epLocations
	epAlerts
	epCount
)

var endpointNames = [epCount]string{"token", "devices", "device", "groups", "last_location", "locations", "alerts"}

func (e endpoint) String() string { return endpointNames[e] }

// list reports whether the endpoint is about no device.
func (e endpoint) list() bool { return e == epDevices || e == epGroups }

// requestMetrics counts requests. Counters are looked up once for each pair of labels: the lookup by label
// costs more than the rest of what this package does for an unchanged poll.
type requestMetrics struct {
	vec   *prometheus.CounterVec
	codes [epCount][600]atomic.Pointer[prometheus.Counter]
}

func newRequestMetrics(reg prometheus.Registerer) *requestMetrics {
	return &requestMetrics{vec: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_api_requests_total",
		Help: "Requests to the Plaspy API, by endpoint and status code; code error where no answer came.",
	}, []string{"endpoint", "code"}))}
}

// count notes one request; status 0 stands for none.
func (m *requestMetrics) count(e endpoint, status int) {
	if status < 100 || status > 599 {
		status = 0
	}
	slot := &m.codes[e][status]
	c := slot.Load()
	if c == nil {
		code := "error"
		if status != 0 {
			code = strconv.Itoa(status)
		}
		counter := m.vec.WithLabelValues(e.String(), code)
		c = &counter
		slot.Store(c)
	}
	(*c).Inc()
}

// register returns the collector that reg knows by that name, which is c if it is the first: the client and
// the token manager's transport count into the same metric.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if known, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := known.ExistingCollector.(C); ok {
			return same
		}
	}
	panic(err) // a programming error, as with MustRegister
}
