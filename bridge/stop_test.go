package bridge

import (
	"encoding/json"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

// TestStopPublishesLastAnswers: an answer that a poll in flight gets while the
// bridge stops is published, as the API will not show it again.
func TestStopPublishesLastAnswers(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 20, Seed: 1, Profile: fleet.Percent(100), Record: 10_000})
	srv := natstest.Start(t, natstest.Listen)
	cfg.NATSURL, cfg.Workers = config.Servers(srv.ClientURL()), 20
	b, stop := launch(t, cfg)
	readyz(t, b, "ready", ready)
	api.Fault(fault.Rule{Kind: fault.Slow, Endpoint: "last_location", Delay: 200 * time.Millisecond})
	before := api.Counts()
	natstest.Eventually(t, "slow polls are in flight", func() bool { return api.Counts().Requests > before.Requests+20 })
	stop()
	js := natstest.JetStream(t, srv.Client(t))
	stream, err := js.Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range api.IDs() {
		shown := api.Changes(id)
		if len(shown) == 0 {
			t.Fatalf("%s was never shown", id)
		}
		stored, err := stream.GetLastMsgForSubject(t.Context(), "plaspy.location."+id)
		if err != nil {
			t.Fatal(err)
		}
		var event struct{ Location json.RawMessage }
		if err := json.Unmarshal(stored.Data, &event); err != nil {
			t.Fatal(err)
		}
		if want := shown[len(shown)-1].Raw; string(event.Location) != want {
			t.Errorf("%s: stored %s, shown last %s", id, event.Location, want)
		}
	}
}
