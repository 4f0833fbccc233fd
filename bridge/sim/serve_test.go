package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

func listen(ctx context.Context, t *testing.T, s *sim.Server) (*sim.Listener, *user) {
	t.Helper()
	l, err := s.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	u := &user{t: t, base: l.URL, via: tr}
	u.login()
	return l, u
}

func TestListenAndClose(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	l, u := listen(t.Context(), t, s)
	u.get("/api/devices").want(200)
	s.Fault(fault.Rule{Kind: fault.HangBody})
	req := u.request("GET", "/api/groups", "")
	req.Header.Set("Authorization", "Bearer "+u.token)
	hung, err := u.via.RoundTrip(req) // half an answer, and the handler waits
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Body.Close()
	elapsed := natstest.Stopwatch()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if took := elapsed(); took > time.Second {
		t.Errorf("closing took %s with a hanging request", took)
	}
	if _, err := io.ReadAll(hung.Body); err == nil {
		t.Error("the hanging answer ended")
	}
	if r := u.get("/api/devices"); r.err == nil {
		t.Error("still served")
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestListenEndsWithContext(t *testing.T) {
	s := sim.New(sim.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	l, u := listen(ctx, t, s)
	cancel()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if r := u.get("/api/devices"); r.err == nil {
		t.Error("still served")
	}
}

func TestListenBusy(t *testing.T) {
	l, _ := listen(t.Context(), t, sim.New(sim.Options{}))
	defer l.Close()
	_, err := sim.New(sim.Options{}).Listen(t.Context(), strings.TrimPrefix(l.URL, "http://"))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want address in use", err)
	}
}

// A body that the client gives up on ends the request in process too.
func TestTransportStreams(t *testing.T) {
	s := sim.New(sim.Options{})
	u := inProcess(t, s)
	s.Fault(fault.Rule{Kind: fault.Endless})
	resp, err := u.via.RoundTrip(u.request("GET", "/api/devices", ""))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, resp.Body, 10<<20); err != nil {
		t.Errorf("read %d: %v", n, err)
	}
	resp.Body.Close() // goleak notices a handler that goes on
}

func TestTransportResets(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	u := inProcess(t, s)
	s.Fault(fault.Rule{Kind: fault.Reset, Times: 1})
	if r := u.get("/api/devices"); !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("got %v", r.err)
	}
	s.Fault(fault.Rule{Kind: fault.CutOff, Times: 1})
	if r := u.get("/api/devices"); !errors.Is(r.err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", r.err)
	}
	if got := s.Counts().Answers["devices"]; !cmp.Equal(got, map[int]int64{0: 2}) {
		t.Errorf("got %v, want two aborted", got)
	}
}

func TestControl(t *testing.T) {
	s := sim.New(sim.Options{Devices: 2, Control: true, Record: 10, Profile: fleet.Unchanged})
	u := serve(t, s)
	q := url.QueryEscape("a/b?c")
	steps := []struct {
		name, method, path, body string
		status                   int
	}{
		{"add a device", "PUT", "/_sim/device?device=" + q, "", 200},
		{"rename it", "PUT", "/_sim/device?device=" + q, `{"name":"Renamed"}`, 200},
		{"remove another", "DELETE", "/_sim/device?device=device0002", "", 200},
		{"set a location", "PUT", "/_sim/location?device=" + q, `{"dateTime":"2026-01-02T03:04:05Z", "latitude":1.0,"longitude":2,"t":"<&>"}`, 200},
		{"a location that is none", "PUT", "/_sim/location?device=" + q, `{`, 400},
		{"without a device", "PUT", "/_sim/location", `{}`, 400},
		{"no such thing", "GET", "/_sim/nothing", "", 400},
		{"a bad fault", "POST", "/_sim/fault", `{"kind":"x"}`, 400},
		{"a bad profile", "PUT", "/_sim/fleet", `{"profile":"x"}`, 400},
		{"a bad token life", "PUT", "/_sim/account", `{"tokenLife":5}`, 400},
		{"a misspelt member", "PUT", "/_sim/account", `{"apikeys":"x"}`, 400},
		{"a bad id", "DELETE", "/_sim/fault?id=x", "", 400},
	}
	for _, c := range steps {
		if r := u.do(u.request(c.method, c.path, c.body)); r.status != c.status {
			t.Fatalf("%s: got %d %s, want %d", c.name, r.status, r.body, c.status)
		}
	}
	var ids []string
	u.get("/_sim/devices").into(&ids)
	if diff := cmp.Diff(ids, []string{"device0001", "a/b?c"}); diff != "" {
		t.Error(diff)
	}
	raw := u.last("a/b?c")
	if raw != steps[3].body {
		t.Errorf("got %s, want %s", raw, steps[3].body)
	}
	var shown, changes []account.Shown
	u.get("/_sim/shown?device=" + q).into(&shown)
	u.get("/_sim/changes?device=" + q).into(&changes)
	if len(shown) != 1 || shown[0].Raw != raw || !cmp.Equal(shown, changes) {
		t.Errorf("got %+v and %+v, want what was shown, byte for byte", shown, changes)
	}
	if list := u.get("/api/devices").body; !contains(list, "Renamed") {
		t.Errorf("got %s", list)
	}

	var added struct{ ID uint64 }
	u.post("/_sim/fault", `{"kind":"status","status":503,"endpoint":"devices"}`).want(200).into(&added)
	u.get("/api/devices").want(503)
	u.do(u.request("DELETE", "/_sim/fault?id="+string(rune('0'+added.ID)), "")).want(200)
	u.get("/api/devices").want(200)
	u.post("/_sim/fault", `{"kind":"reset"}`).want(200)
	u.do(u.request("DELETE", "/_sim/fault", "")).want(200)

	u.do(u.request("DELETE", "/_sim/location?device="+q, "")).want(200)
	if got := u.last("a/b?c"); got == raw {
		t.Error("the set location still shows")
	}
	u.do(u.request("PUT", "/_sim/location?device="+q, "")).want(200)
	if body := u.get(device("a/b?c", "/lastLocation")).body; contains(body, "lastLocation") {
		t.Errorf("got %s, want nothing shown", body)
	}

	now := time.Now()
	body := ranged(now, now, `,"location":`+located(now, 1))
	u.post(device("a/b?c", "/locations"), body).want(200)
	var posts []account.Post
	u.get("/_sim/posts?device=" + q).into(&posts)
	if len(posts) != 1 || posts[0].Body != body {
		t.Errorf("got posts %+v", posts)
	}

	u.post("/_sim/revoke", "").want(200)
	u.get("/api/devices").want(401)
	u.do(u.request("PUT", "/_sim/account", `{"apiKey":"other"}`)).want(200)
	u.post("/api/Auth/Token", `{"userName":"sim","apiKey":"sim-key"}`).want(400)
	var counts sim.Counts
	u.get("/_sim/counts").into(&counts)
	if diff := cmp.Diff(counts, s.Counts()); diff != "" {
		t.Errorf("counts (-over HTTP +direct):\n%s", diff)
	}
	if counts.Tokens.Refused != 1 || counts.Answers["devices"][503] != 1 || counts.Accepted["a/b?c"] != 1 {
		t.Errorf("got counts %+v", counts)
	}
	if _, err := json.Marshal(counts); err != nil {
		t.Error(err)
	}
}
