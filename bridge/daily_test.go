package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
)

// TestDailyResultsAcrossRestarts counts at the API what three lives of a bridge
// use of one device's day: one head start, and no more.
func TestDailyResultsAcrossRestarts(t *testing.T) {
	api, cfg := fleetOf(t, sim.Options{Devices: 1, Seed: 1, Profile: fleet.EverySecond})
	const limit, head = 48, 12
	cfg.DailyResults = limit
	id := api.IDs()[0]
	polls := func() (n int64) {
		for _, count := range api.Counts().Answers["lastLocation"] {
			n += count
		}
		return n
	}
	for life := range 3 {
		b, stop := launch(t, cfg)
		readyz(t, b, "ready", ready)
		deadline := time.NewTimer(15 * time.Second)
		for told := false; !told; {
			select {
			case <-deadline.C:
				t.Fatalf("life %d: why does not tell of the quota after %d polls", life, polls())
			case <-time.After(10 * time.Millisecond):
			}
			var why struct{ Reason string }
			if answer, ok := b.pool.Why(id); ok && json.Unmarshal(answer, &why) == nil {
				told = why.Reason == "quota"
			}
		}
		deadline.Stop()
		stop()
	}
	if n := polls(); n < head || n > head+1 {
		t.Errorf("%d results used by three lives, want the one head start of %d", n, head)
	}
}

// TestLivezOfARun: a bridge that works shows every kind of progress, with ages.
func TestLivezOfARun(t *testing.T) {
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.EverySecond})
	b, _ := launch(t, cfg)
	readyz(t, b, "ready", ready)
	follow(t, b, "plaspy.location.*", 5)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/livez", b.HTTPAddr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var live ops.Liveness
	if err := json.Unmarshal(body, &live); err != nil {
		t.Fatal(err)
	}
	limit := livenessAge(cfg).Seconds()
	for _, name := range []string{"watch", "dispatcher", "polls", "acknowledgements", "posts", "inbound"} {
		h, there := live.Heartbeats[name]
		if !there || !h.OK || h.MaxAge < limit || h.Age > limit || h.Idle && h.Waits == "" {
			t.Errorf("%s: %+v in %s", name, h, body)
		}
	}
	if !live.Live || len(live.Heartbeats) != 6 {
		t.Errorf("%s", body)
	}
}
