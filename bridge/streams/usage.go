package streams

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/publisher"
)

// usage holds the metrics of the store.
type usage struct {
	bytes, limit               *prometheus.GaugeVec
	accountBytes, accountLimit prometheus.Gauge

	asks   sync.WaitGroup
	mu     sync.Mutex
	asking bool
	denied bool // the server did not answer; ask again after the next connect
}

func newUsage(reg prometheus.Registerer) *usage {
	u := &usage{
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "plaspy_bridge_store_bytes", Help: "Bytes that a stream or bucket holds.",
		}, []string{"stream"}),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "plaspy_bridge_store_limit_bytes", Help: "Limit of the bytes that a stream or bucket holds (max_bytes); 0 means no limit.",
		}, []string{"stream"}),
		accountBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_store_account_bytes", Help: "Bytes on disk of all streams of the NATS account; 0 if unknown.",
		}),
		accountLimit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_store_account_limit_bytes",
			Help: "Limit of the bytes on disk of all streams of the NATS account; 0 means no limit or unknown.",
		}),
	}
	if reg != nil {
		reg.MustRegister(u.bytes, u.limit, u.accountBytes, u.accountLimit)
	}
	return u
}

// record sets the sizes of the streams.
func (u *usage) record(reports []publisher.StreamReport) {
	for _, r := range reports {
		if r.Info == nil {
			continue
		}
		u.bytes.WithLabelValues(r.Stream).Set(float64(r.Info.State.Bytes))
		u.limit.WithLabelValues(r.Stream).Set(float64(max(r.Info.Config.MaxBytes, 0)))
	}
}

// ask requests the account's usage and limit in the background. If the server did
// not answer, perhaps for lack of a permission, it is asked again after the next
// connect.
func (u *usage) ask(js jetstream.JetStream, fresh bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.asking || u.denied && !fresh {
		return
	}
	u.asking = true
	u.asks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		info, err := js.AccountInfo(ctx)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.asking, u.denied = false, err != nil
		if err == nil {
			u.accountBytes.Set(float64(info.Store))
			u.accountLimit.Set(float64(max(info.Limits.MaxStore, 0)))
		}
	})
}

// wait blocks until no request is in flight.
func (u *usage) wait() { u.asks.Wait() }
