package sim_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

// A harness in another process can read and do the same as one in this process.
func TestRemote(t *testing.T) {
	s := sim.New(sim.Options{Devices: 2, Control: true, Record: 10, Profile: fleet.Unchanged})
	u := serve(t, s)
	ctx := t.Context()
	r := &sim.Remote{URL: u.base, Client: &http.Client{Transport: u.via}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const id, raw = "a/b c", `{"dateTime":"2026-01-02T03:04:05Z", "latitude":1.0,"longitude":2,"t":"<&>"}`
	must(r.AddDevice(ctx, id))
	must(r.RemoveDevice(ctx, "device0001"))
	must(r.SetLocation(ctx, id, []byte(raw)))
	ids, err := r.IDs(ctx)
	must(err)
	if diff := cmp.Diff(ids, []string{"device0002", id}); diff != "" {
		t.Error(diff)
	}
	if got := u.last(id); got != raw {
		t.Errorf("got %s, want %s", got, raw)
	}
	n, err := r.Fault(ctx, fault.Rule{Kind: fault.Status, Status: 503})
	must(err)
	u.get("/api/devices").want(503)
	must(r.RemoveFault(ctx, n))
	u.get("/api/devices").want(200)
	_, err = r.Fault(ctx, fault.Rule{Kind: fault.Reset, Endpoint: "alerts"})
	must(err)
	must(r.ClearFaults(ctx))
	u.post(device(id, "/alerts"), `{"from":"2026-01-02","to":"2026-01-03"}`).want(200)

	shown, err := r.Shown(ctx, id)
	must(err)
	changes, err := r.Changes(ctx, id)
	must(err)
	posts, err := r.Posts(ctx, id)
	must(err)
	local := cmp.Diff(shown, s.Shown(id)) + cmp.Diff(changes, s.Changes(id)) + cmp.Diff(posts, s.Posts(id))
	if local != "" || len(shown) != 1 || len(changes) != 1 || len(posts) != 1 || shown[0].Token != 1 || posts[0].Token != 1 {
		t.Errorf("got %+v, %+v, %+v; against the server's own:\n%s", shown, changes, posts, local)
	}
	must(r.ReleaseLocation(ctx, id))
	if got := u.last(id); got == raw {
		t.Error("the set location still shows")
	}
	must(r.SetProfile(ctx, "percent:100"))
	if a, b := u.last("device0002"), u.last("device0002"); a == b {
		t.Errorf("got the same twice from a fleet that always changes: %s", a)
	}
	must(r.SetTokenLife(ctx, time.Nanosecond))
	old := u.token
	u.login()
	u.get("/api/devices").want(401)
	u.token = old
	must(r.RevokeTokens(ctx))
	u.get("/api/devices").want(401)
	must(r.SetKey(ctx, "other"))
	u.post("/api/Auth/Token", `{"userName":"sim","apiKey":"sim-key"}`).want(400)
	counts, err := r.Counts(ctx)
	must(err)
	if diff := cmp.Diff(counts, s.Counts()); diff != "" {
		t.Errorf("counts (-remote +direct):\n%s", diff)
	}

	if err := r.SetLocation(ctx, id, []byte(`{`)); err == nil {
		t.Error("no error for a broken location")
	}
	if _, err := (&sim.Remote{URL: "http://127.0.0.1:1"}).Counts(ctx); err == nil {
		t.Error("no error without a simulator")
	}
}
