package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/feed"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/view"
	"plaspy-bridge/publisher"
)

// newView makes the live view of everything that was opened before it.
func (b *Bridge) newView() *view.View {
	o := view.Options{
		Source: viewSource{b.polling.pool}, Gatherer: b.telemetry.metrics, Registerer: b.telemetry.metrics, Status: b.status,
		Version: b.version, Replica: b.cfg.ReplicaID, Log: b.logger("view"),
	}
	if b.cfg.Inbound {
		box := deadletter.Open(b.broker.pub.JetStream(), b.broker.pub.Subjects())
		o.DeadLetters = func(ctx context.Context, limit int) ([]view.DeadLetter, error) {
			ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
			defer cancel()
			return newestLetters(ctx, box, limit)
		}
	}
	return view.New(o)
}

// viewSource shows the pool's devices.
type viewSource struct{ *outbound.Pool }

// Changed implements view.Source.
func (s viewSource) Changed(f func(view.Device)) {
	s.Pool.Changed(func(d outbound.DeviceStatus) { f(view.Device(d)) })
}

// status is the health of the bridge, for the live view.
func (b *Bridge) status() view.Status {
	ready, parts := b.telemetry.health.Ready()
	live, hearts := b.telemetry.health.Live()
	s := view.Status{Ready: ready, Live: live, Facts: b.facts()}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		s.Parts = append(s.Parts, view.Part{Name: name, OK: p.OK, Degraded: p.Degraded, Reason: p.Reason, Since: p.Since})
	}
	for _, name := range slices.Sorted(maps.Keys(hearts)) {
		s.Hearts = append(s.Hearts, view.Heart{Name: name, OK: hearts[name].OK, Idle: hearts[name].Idle})
	}
	return s
}

// facts must be stable: every change is sent to every open page.
func (b *Bridge) facts() []view.Fact {
	nats := "external"
	if b.broker.embedded != nil {
		nats = "embedded, " + b.broker.embedded.ClientURL()
	}
	facts := []view.Fact{
		{Name: "API", Value: b.cfg.BaseURL.Redacted()},
		{Name: "NATS", Value: nats},
		{Name: "Schedule", Value: fmt.Sprintf("%s, at most %s between polls", b.cfg.Schedule, b.cfg.PollInterval)},
	}
	return append(facts, b.controlling.facts(b.polling.pool.Short())...)
}

// newestLetters returns the newest dead letters for the live view.
func newestLetters(ctx context.Context, box *deadletter.Box, limit int) ([]view.DeadLetter, error) {
	letters, err := box.Newest(ctx, limit)
	list := make([]view.DeadLetter, 0, len(letters))
	for _, l := range letters {
		list = append(list, view.DeadLetter{
			Sequence: l.Seq, At: l.At, Device: l.Device, Kind: string(l.Kind), Reason: l.Reason, Error: l.Error, Attempts: l.Attempts,
		})
	}
	return list, err
}

// newFeed makes the feed of positions and events. It reads the stream, so it has
// the devices of all replicas.
func newFeed(pub *publisher.Publisher, client *plaspy.Client, log *slog.Logger, reg prometheus.Registerer) *feed.Feed {
	return feed.New(feed.Options{
		State: pub.Reader().State, JetStream: pub.JetStream(), Subjects: pub.Subjects(), Log: log, Registerer: reg,
		Groups: func(ctx context.Context) (map[string][]string, error) {
			groups, _, err := client.Groups(ctx)
			if err != nil {
				return nil, err
			}
			members := map[string][]string{}
			for _, g := range groups {
				members[g.ID] = append(members[g.ID], g.Devices...)
				if g.Name != g.ID {
					members[g.Name] = append(members[g.Name], g.Devices...)
				}
			}
			return members, nil
		},
	})
}
