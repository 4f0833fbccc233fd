package bridge

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// TestControl changes everything that can be changed at run time of a bridge that
// runs, and takes it back.
func TestControl(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.EverySecond})
	ids := api.IDs()
	cfg.Weights = []string{ids[0] + "=8"}
	b, _ := launch(t, cfg)
	level := &slog.LevelVar{}
	b.ControlLevel(level)
	readyz(t, b, "ready", ready)
	nc, err := nats.Connect(b.ClientURL(), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js := natstest.JetStream(t, nc)
	bucket := control.Open(js, publisher.Subjects(cfg.Prefix), 1)
	set := func(key string, e control.Entry) {
		t.Helper()
		if err := bucket.Set(t.Context(), key, e); err != nil {
			t.Fatal(err)
		}
	}
	why := func(id, part string) {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			answer, _ := b.polling.pool.Why(id)
			if strings.Contains(string(answer), part) {
				return
			}
			select {
			case <-limit:
				t.Fatalf("why %s lacks %s: %s", id, part, answer)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	if w := termsOf(cfg, &control.Rules{})(ids[0], publisher.Encode(ids[0]), nil); w.Weight != 8 || w.Control != nil {
		t.Errorf("BRIDGE_WEIGHTS: %+v", w)
	}

	yes, debug := true, slog.LevelDebug
	set(control.DeviceKey(ids[0]), control.Entry{Paused: &yes, SetBy: "eva@laptop"})
	why(ids[0], `"reason":"paused"`)
	why(ids[0], `"control":[{"entry":"device.`+publisher.Encode(ids[0])+`","paused":true,"setBy":"eva@laptop","setAt":"`)
	set(control.DeviceKey(ids[1]), control.Entry{Interval: time.Hour, Weight: 2})
	why(ids[1], `"interval":"1h0m0s","weight":2`)
	set(control.FleetKey, control.Entry{RateLimit: 30, LogLevel: &debug, Exclude: []string{ids[2]}})
	why(ids[2], `"reason":"unlisted"`)
	if rate := b.api.budget.PollRate(); rate > 30 {
		t.Errorf("%v polls a minute, want 30 at most", rate)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("log level %v", level.Level())
	}
	for id, code := range map[string]string{ids[0]: "409", ids[2]: "404", "unknown": "404"} {
		if m := question(t, b, &nats.Msg{Subject: "plaspy.api.poll." + publisher.Encode(id)}); m.Header.Get("Nats-Service-Error-Code") != code {
			t.Errorf("poll of %s: %v %s, want %s", id, m.Header, m.Data, code)
		}
	}

	for _, key := range []string{control.FleetKey, control.DeviceKey(ids[0]), control.DeviceKey(ids[1])} {
		if there, err := bucket.Clear(t.Context(), key); !there || err != nil {
			t.Errorf("clear %s: %v, %v", key, there, err)
		}
	}
	why(ids[0], `"result":"changed"`)
	why(ids[2], `"result":"changed"`)
	// Its decisions may be older than the exclusion.
	natstest.Eventually(t, "the device is chosen again", func() bool { return b.polling.pool.Polls(ids[2]) })
	m := question(t, b, &nats.Msg{Subject: "plaspy.api.poll." + publisher.Encode(ids[2])})
	var asked struct{ DeviceID, Result string }
	if err := json.Unmarshal(m.Data, &asked); err != nil || asked.DeviceID != ids[2] || asked.Result == "" {
		t.Errorf("poll: %v, %s, %v", m.Header, m.Data, err)
	}
	natstest.Eventually(t, "the log has its level again", func() bool { return level.Level() == cfg.LogLevel })
}
