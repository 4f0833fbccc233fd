package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func equal(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestOnlyChangesArePublished(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("d")
	a, b := at(1, "a"), at(2, "b")
	answers := []string{a, a, strings.Replace(a, "{", `{"inactiveSeconds":7,`, 1), b, a, b}
	api.next["d"] = func(n int) (string, error) { return answers[min(n, len(answers)-1)], nil }
	r := newRig(t, natstest.Start(t), api, options())
	r.polls("d", len(answers)+5)
	r.stop()
	got := r.events()
	equal(t, summary(got), []string{"device.d added", "location.d a", "location.d b", "location.d a", "location.d b"})
	if !strings.HasSuffix(got[1].body, `"location":`+a+`}`) {
		t.Errorf("body %s does not end with the API's location %s", got[1].body, a)
	}
	if api.truth["d"][0] != a {
		t.Fatal("the fake API has no such answer")
	}
}

// TestEveryShownChangeOnceInOrder lets the broker die twice, and a second pool
// run beside the first without knowing of it.
func TestEveryShownChangeOnceInOrder(t *testing.T) {
	t.Parallel()
	const devices = 20
	var ids []string
	api := newFakeAPI()
	var values [devices]atomic.Int64
	for i := range devices {
		id := fmt.Sprintf("d%d", i)
		ids = append(ids, id)
		api.next[id] = func(int) (string, error) {
			v := values[i].Add(1)
			return at(int(v), v), nil
		}
	}
	api.setList(ids...)
	srv := natstest.Start(t, natstest.Listen)
	r := newRig(t, srv, api, options())
	for range 2 {
		r.polls("d7", 10)
		srv.Kill()
		srv.Restart()
		// A request that comes before JetStream is there waits five seconds for an answer.
		natstest.Eventually(t, "JetStream answers again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			_, err := natstest.Own(t, r.pub).AccountInfo(ctx)
			return err == nil
		})
		r.pool.Resync()
	}
	r.polls("d7", 10)
	r.stop()
	got := map[string][]string{}
	for _, e := range r.events() {
		var b struct {
			DeviceID string
			Location json.RawMessage
		}
		if err := json.Unmarshal([]byte(e.body), &b); err != nil {
			t.Fatal(err)
		}
		if b.Location != nil {
			got[b.DeviceID] = append(got[b.DeviceID], string(b.Location))
		}
	}
	for _, id := range ids {
		if len(api.truth[id]) < 10 {
			t.Errorf("%s got only %d fixes", id, len(api.truth[id]))
		}
		if !slices.Equal(got[id], api.truth[id]) {
			t.Errorf("%s: published\n%v\nshown\n%v", id, got[id], api.truth[id])
		}
	}
}

func TestTwoPoolsThatDoNotKnowOfEachOther(t *testing.T) {
	t.Parallel()
	const devices = 10
	api := newFakeAPI()
	var ids []string
	var clock atomic.Int64
	for i := range devices {
		ids = append(ids, fmt.Sprintf("d%d", i))
		// Both see the same fix at the same time; a new one every 20 polls of all.
		api.next[ids[i]] = func(int) (string, error) {
			v := clock.Add(1) / 20
			return at(int(v), v, `"alerts":["A`+fmt.Sprint(v%3)+`"]`), nil
		}
	}
	api.setList(ids...)
	srv := natstest.Start(t)
	one, two := newRig(t, srv, api, options()), newRig(t, srv, api, options())
	one.polls("d3", 40)
	one.stop()
	two.stop()
	last, alert := map[string]float64{}, map[string]string{}
	for _, line := range summary(one.events()) {
		kind, rest, _ := strings.Cut(line, ".")
		subject, value, _ := strings.Cut(rest, " ")
		switch kind {
		case "location":
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				t.Fatal(err)
			}
			if prev, ok := last[subject]; ok && v <= prev {
				t.Errorf("%s: %v after %v: published twice or out of order", subject, v, prev)
			}
			last[subject] = v
		case "alert":
			if alert[subject] == value {
				t.Errorf("%s: %s twice in a row", subject, value)
				device, _, _ := strings.Cut(subject, ".")
				for _, e := range one.events() {
					if strings.Contains(e.subject, "."+device) {
						t.Log(e.header.Get("Nats-Sequence"), summary([]event{e}), "expect", e.header.Get("Nats-Expected-Last-Subject-Sequence"), "edges", e.header.Get("plaspy-edges"))
					}
				}
				t.FailNow()
			}
			alert[subject] = value
		}
	}
	if len(last) != devices {
		t.Errorf("%d devices published, want %d", len(last), devices)
	}
}

func TestRestartComparesWithTheStream(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("same", "moved")
	api.show("same", at(1, "a", `"alerts":["SOS"]`))
	api.show("moved", at(1, "a", `"alerts":["SOS","Door"]`))
	srv := natstest.Start(t)
	r := newRig(t, srv, api, options())
	r.polls("same", 3)
	r.polls("moved", 3)
	r.stop()
	before := len(r.events())
	api.show("moved", at(2, "b", `"alerts":["Door"]`))
	r = newRig(t, srv, api, options())
	r.until("the alert to be cleared", body(`"state":"cleared"`))
	r.polls("same", 3)
	r.stop()
	equal(t, summary(r.events())[before:], []string{"location.moved b", "alert.moved.SOS cleared"})
}

func TestAlertEdges(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("d")
	answers := []string{
		at(1, 1, `"alerts":["SOS","SpeedLimit","SOS"]`, `"alertTexts":["Help"]`, `"hasCriticalAlert":true`),
		at(2, 2, `"alerts":["SOS"]`),
		at(3, 3, `"alerts":"broken"`), // alerts unknown
		at(4, 4, `"alerts":["SOS","A b"]`),
		at(5, 5),
	}
	api.next["d"] = func(n int) (string, error) { return answers[min(n, len(answers)-1)], nil }
	r := newRig(t, natstest.Start(t), api, options())
	r.polls("d", len(answers)+3)
	r.stop()
	got := slices.DeleteFunc(r.events(), func(e event) bool { return strings.HasPrefix(e.subject, "plaspy.device") })
	equal(t, summary(got), []string{
		"location.d 1", "alert.d.SOS raised", "alert.d.SpeedLimit raised", "location.d 2", "alert.d.SpeedLimit cleared", "location.d 3",
		"location.d 4", "alert.d.A=20b raised", "location.d 5", "alert.d.SOS cleared", "alert.d.A=20b cleared",
	})
	i := slices.IndexFunc(got, body(`"alert":"SOS"`))
	if want := `"critical":true,"texts":["Help"],"dateTime":"2026-01-02T03:00:01Z","latitude":4.7,"longitude":-74.1`; !strings.Contains(got[i].body, want) {
		t.Errorf("alert %s, want in it %s", got[i].body, want)
	}
	if got := got[i-1].header.Get(publisher.HeaderEdges); got != "+SOS +SpeedLimit" {
		t.Errorf("the location announces %q", got)
	}
}

// TestEdgesThatACrashCutOff deletes the edges from the stream, as if the
// process had died between the location and them. An alert of the history may have
// followed, from a replica that was held up.
func TestEdgesThatACrashCutOff(t *testing.T) {
	t.Parallel()
	for _, row := range []string{"", `{"alert":"Door","state":"raised","source":"history","dateTime":"2026-01-02T02:59:00Z"}`} {
		t.Run(row, func(t *testing.T) {
			o := options()
			o.AlertHistory = row != ""
			api := newFakeAPI("d")
			api.show("d", at(1, 1, `"alerts":["SOS","Door"]`))
			srv := natstest.Start(t)
			r := newRig(t, srv, api, o)
			r.until("the last edge", body(`"alert":"Door"`))
			r.stop()
			st, err := natstest.Own(t, r.pub).Stream(t.Context(), "PLASPY_EVENTS")
			if err != nil {
				t.Fatal(err)
			}
			door := subjects.Alert("d", "Door")
			if err := st.Purge(t.Context(), jetstream.WithPurgeSubject(door)); err != nil {
				t.Fatal(err)
			}
			if row != "" {
				if _, err := natstest.Own(t, r.pub).Publish(t.Context(), door, []byte(row)); err != nil {
					t.Fatal(err)
				}
			}
			before := len(r.events())
			r.forgetPolls()
			r = newRig(t, srv, api, o)
			r.polls("d", 5)
			r.stop()
			equal(t, summary(r.events())[before:], []string{"alert.d.Door raised"})
		})
	}
}

func TestSilent(t *testing.T) {
	t.Parallel()
	o := options()
	o.SilentAfter = 30 * time.Millisecond
	api := newFakeAPI("d", "never")
	api.show("d", at(1, 1))
	srv := natstest.Start(t)
	r := newRig(t, srv, api, o)
	got := r.until("silent", body(`"state":"raised"`))
	if e := got[len(got)-1]; strings.Contains(e.body, "texts") || !strings.Contains(e.body, `"critical":false,"dateTime":"2026-01-02T03:00:01Z"`) {
		t.Errorf("silent alert %s", e.body)
	}
	r.polls("d", 5)
	r.stop()
	r = newRig(t, srv, api, o) // remembers the alert
	r.polls("d", 5)
	api.show("d", at(2, 2))
	r.until("silence to end", body(`"state":"cleared"`))
	r.stop()
	equal(t, withoutDevices(summary(r.events()))[:4], []string{"location.d 1", "alert.d.silent raised bridge", "location.d 2", "alert.d.silent cleared bridge"})
}

func TestUnusableFixes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, raw, want string }{
		{"no dateTime", `{"latitude":1,"longitude":2}`, "no dateTime"},
		{"dateTime of another type", `{"dateTime":5,"latitude":1,"longitude":2}`, "not a string"},
		{"dateTime that is none", `{"dateTime":"soon","latitude":1,"longitude":2}`, "not an ISO 8601 time"},
		{"no latitude", `{"dateTime":"2026-01-02T03:04:05Z","longitude":2}`, "no latitude"},
		{"latitude in quotes", `{"dateTime":"2026-01-02T03:04:05Z","latitude":"1","longitude":2}`, "latitude is not a number"},
		{"latitude out of range", `{"dateTime":"2026-01-02T03:04:05Z","latitude":90.1,"longitude":2}`, "latitude is not between"},
		{"longitude out of range", `{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":-181}`, "longitude is not between"},
		{"longitude null", `{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":null}`, "longitude is not a number"},
		{"not UTF-8", "{\"dateTime\":\"2026-01-02T03:04:05Z\",\"latitude\":1,\"longitude\":2,\"x\":\"\xff\"}", "not UTF-8"},
		{"an array", `[]`, "invalid JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := track.NewParser(nil, plaspy.ParseTime).Fix([]byte(tt.raw), 1); !errors.Is(err, track.ErrFix) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("in a run", func(t *testing.T) {
		api := newFakeAPI("bad", "good")
		api.show("bad", `{"latitude":1,"longitude":2}`)
		api.show("good", at(1, 1))
		r := newRig(t, natstest.Start(t), api, options())
		r.polls("bad", 5)
		api.show("bad", at(2, "mended"))
		r.until("the mended fix", body("mended"))
		r.stop()
		equal(t, withoutDevices(summary(r.events())), []string{"location.good 1", "location.bad mended"})
	})
}

func TestHangingDevicesDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	const hanging = 40
	api := newFakeAPI("good")
	ids := []string{"good"}
	for i := range hanging {
		id := fmt.Sprintf("hang%d", i)
		ids = append(ids, id)
		api.hang[id] = true
	}
	api.setList(ids...)
	api.show("good", at(1, 1))
	r := newRig(t, natstest.Start(t), api, options())
	// Once each has failed, a quarter of the workers is theirs at most.
	for i := range hanging {
		for failed := false; !failed; {
			r.polls("good", 1)
			r.pool.fleet.mu.Lock()
			d := r.pool.fleet.devices.polled(ids[i])
			failed = d == nil || d.failures > 0 || ids[i] == "good"
			r.pool.fleet.mu.Unlock()
		}
	}
	count := func() (good, hung int) {
		api.set(func() {
			good = api.polls["good"]
			for _, id := range ids[1:] {
				hung += api.polls[id]
			}
		})
		return good, hung
	}
	end := make(chan struct{}) // those that hang, hang on: how fast the others are polled does not matter
	api.set(func() { api.hanging = end })
	good, hung := count()
	r.polls("good", 40)
	goodLater, hungLater := count()
	if g, h := goodLater-good, hungLater-hung; h > g {
		t.Errorf("%d polls of hanging devices but only %d of the one that answers", h, g)
	}
	close(end)
	r.stop()
}

func TestOwnership(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	api.show("a", at(1, "a1"))
	api.show("b", at(1, "b1"))
	r := newRig(t, natstest.Start(t), api, options())
	r.own(func(token string) bool { return token == "a" })
	r.until("a", body("a1"))
	r.polls("a", 5)
	before := func() (n int) { api.set(func() { n = api.polls["b"] }); return n }
	polls := before()
	r.polls("a", 10)
	if n := before(); n > polls {
		t.Errorf("b is polled although another replica owns it")
	}
	r.own(func(token string) bool { return token == "b" })
	r.until("b", body("b1"))
}

func TestDailyResults(t *testing.T) {
	t.Parallel()
	const headStart = 10
	begun := time.Now().UTC().YearDay()
	o := options()
	o.Quota = quota.New(12, nil)
	api := newFakeAPI("d", "other")
	n := 0
	api.next["d"] = func(int) (string, error) { n++; return at(n, n), nil }
	r := newRig(t, natstest.Start(t), api, o)
	r.polls("other", 60) // never reports, and uses nothing
	r.stop()
	most := headStart
	if time.Now().UTC().YearDay() != begun {
		most += headStart // of the next day
	}
	if got := api.polls["d"]; got < headStart || got > most {
		t.Errorf("%d results used at once, want the head start of %d", got, headStart)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("d")
	answers := []string{at(1, 1, `"alerts":["SOS"]`), at(1, 1, `"alerts":["SOS"]`), `{"latitude":1}`}
	api.next["d"] = func(n int) (string, error) {
		if n == len(answers) {
			return "", &plaspy.Error{Endpoint: "last_location", Status: 500, Message: "uncontrolled error"}
		}
		return answers[min(n, len(answers)-1)], nil
	}
	r := newRig(t, natstest.Start(t), api, options())
	r.polls("d", len(answers)+2)
	why, ok := r.pool.reason("d")
	if !ok || why.Plan == "" || why.Reason == "" {
		t.Fatalf("no reason: %+v", why)
	}
	var got []string
	for _, d := range why.Decisions {
		got = append(got, strings.TrimSpace(fmt.Sprint(d.Result, " ", d.Published, " ", d.Detail)))
	}
	slices.Reverse(got)
	want := []string{"changed 2 its first fix", "unchanged 0", "unusable 0 location is not usable: it has no dateTime", "error 0 last_location: status 500: uncontrolled error"}
	if len(got) < len(want) {
		t.Fatalf("decisions %q", got)
	}
	equal(t, got[:len(want)], want)
	if last := why.Decisions[len(why.Decisions)-1]; last.Sequence != 3 || len(last.ID) != 32 || last.At.IsZero() {
		t.Errorf("the first decision has %+v for the published events", last)
	}
	if _, ok := r.pool.Why("nobody"); ok {
		t.Error("a device that is not polled here has a reason")
	}
}

// TestManyDevicesComeUnderCareAtOnce checks the thousand consumers that a
// stream has room for.
func TestManyDevicesComeUnderCareAtOnce(t *testing.T) {
	const devices = 1500
	api := newFakeAPI()
	var ids []string
	for i := range devices {
		ids = append(ids, fmt.Sprintf("d%04d", i))
		api.show(ids[i], at(1, i))
	}
	api.setList(ids...)
	r := newRig(t, natstest.Start(t), api, options())
	r.own(func(string) bool { return true })
	seen := map[string]bool{}
	r.until("all devices", func(e event) bool {
		if strings.HasPrefix(e.subject, "plaspy.location.") {
			seen[e.subject] = true
		}
		return len(seen) == devices
	})
	st, err := natstest.Own(t, r.pub).Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Consumers; n > 10 {
		t.Errorf("%d consumers are left on the stream", n)
	}
}
