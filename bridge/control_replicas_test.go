package bridge

import (
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// TestControlOfReplicas: two bridges follow the same entries. The one that has the
// devices with a short interval gets the larger part of the budget, a takeover keeps the
// entries, a restart of the server loses none, and their end is the same for all.
func TestControlOfReplicas(t *testing.T) {
	t.Parallel()
	const devices, quick = 40, 8
	api, cfg := fleetOf(t, sim.Options{Devices: devices, Seed: 1, Profile: fleet.EverySecond})
	srv := natstest.Start(t, natstest.Listen)
	cfg.NATSURL, cfg.RateLimit, cfg.HTTPAddr, cfg.PollInterval = config.Servers(srv.ClientURL()), 1200, "", time.Minute
	a, end := replicaOf(t, cfg, "a")
	b, _ := replicaOf(t, cfg, "b")
	natstest.Eventually(t, "both share the devices", func() bool {
		return a.polling.pool.Owned() > quick && b.polling.pool.Owned() > 0 && a.polling.pool.Owned()+b.polling.pool.Owned() == devices
	})
	js := natstest.JetStream(t, srv.Client(t))
	bucket := control.Open(js, publisher.Subjects(cfg.Prefix), 1)
	set := func(key string, e control.Entry) {
		t.Helper()
		natstest.Eventually(t, "the entry is written", func() bool { return bucket.Set(t.Context(), key, e) == nil })
	}
	names := func(of *Bridge, id, entry string) bool {
		answer, _ := of.polling.pool.Why(id)
		return strings.Contains(string(answer), `"entry":"`+entry+`"`)
	}
	entries := func(of *Bridge, n int) bool { return of.controlling.watcher.Rules().Len() == n }

	var ids []string
	for _, id := range api.IDs() {
		if a.polling.pool.Polls(id) && len(ids) < quick {
			ids = append(ids, id)
			set(control.DeviceKey(id), control.Entry{Interval: 5 * time.Second})
		}
	}
	if len(ids) < quick {
		t.Fatalf("the first one polls %d devices, want more than %d", len(ids), quick)
	}
	id := ids[0]
	natstest.Eventually(t, "the short intervals are in the load", func() bool { return a.load().Polls == a.polling.pool.Owned()-quick+quick*12 })
	if *proof { // shares follow after a time of calm
		natstest.Eventually(t, "the replica with short intervals has most of the budget", func() bool {
			return a.api.budget.PollRate() > 850 && b.api.budget.PollRate() < 350
		})
	}
	if !names(a, id, control.DeviceKey(id)) {
		t.Error("why does not name the entry")
	}
	end()
	natstest.Eventually(t, "a takeover keeps the entry", func() bool { return b.polling.pool.Polls(id) && names(b, id, control.DeviceKey(id)) })
	natstest.Eventually(t, "the demand of all devices is its own", func() bool { return b.polling.pool.Demand(time.Minute) == devices-quick+quick*12 })

	set(control.FleetKey, control.Entry{Weight: 2, SetBy: "eva"})
	srv.Kill()
	srv.Restart()
	c, _ := replicaOf(t, cfg, "c")
	natstest.Eventually(t, "a restart of the server loses no entry", func() bool { return entries(b, quick+1) && entries(c, quick+1) })
	natstest.Eventually(t, "an entry with an end is written", func() bool {
		return bucket.Set(t.Context(), control.FleetKey, control.Entry{Weight: 2, Until: time.Now().Add(500 * time.Millisecond)}) == nil
	})
	natstest.Eventually(t, "the entry ends for all", func() bool {
		return b.controlling.watcher.Rules().Fleet() == nil && c.controlling.watcher.Rules().Fleet() == nil
	})
	if !entries(b, quick) || !entries(c, quick) {
		t.Errorf("%d and %d entries are left, want %d", b.controlling.watcher.Rules().Len(), c.controlling.watcher.Rules().Len(), quick)
	}
	natstest.Eventually(t, "the bucket is deleted", func() bool { return js.DeleteKeyValue(t.Context(), "plaspy_control") == nil })
	natstest.Eventually(t, "no entry holds", func() bool { return entries(b, 0) && entries(c, 0) })
	natstest.Eventually(t, "the environment holds", func() bool {
		return b.polling.pool.Demand(time.Minute)+c.polling.pool.Demand(time.Minute) == devices && !names(b, id, control.DeviceKey(id))
	})
	set(control.FleetKey, control.Entry{Weight: 3, SetBy: "eva"})
	natstest.Eventually(t, "a new bucket is followed", func() bool { return entries(b, 1) && entries(c, 1) })
	for _, of := range []*Bridge{b, c} {
		facts := of.controlling.facts("")
		if len(facts) != 1 || !strings.HasPrefix(facts[0].Value, "fleet: weight 3; set by eva at ") {
			t.Errorf("the live view shows %v", facts)
		}
	}
}
