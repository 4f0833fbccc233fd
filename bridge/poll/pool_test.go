package poll

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestOnlyChangesArePublished(t *testing.T) {
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
		t.Errorf("body %s does not end with the location as the API gave it, %s", got[1].body, a)
	}
	if api.truth["d"][0] != a {
		t.Fatal("the fake API does not remember")
	}
}

// TestEveryShownChangeOnceInOrder lets the broker die twice, and a second pool
// run beside the first without knowing of it.
func TestEveryShownChangeOnceInOrder(t *testing.T) {
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
		r.pool.Resync()
	}
	r.polls("d7", 10)
	r.stop()
	got := map[string][]string{}
	for _, e := range r.events() {
		var b publisher.LocationBody
		if err := json.Unmarshal([]byte(e.body), &b); err != nil {
			t.Fatal(err)
		}
		if b.Location != nil {
			got[b.DeviceID] = append(got[b.DeviceID], string(b.Location))
		}
	}
	for _, id := range ids {
		if len(api.truth[id]) < 10 {
			t.Errorf("%s was shown %d fixes only", id, len(api.truth[id]))
		}
		if !slices.Equal(got[id], api.truth[id]) {
			t.Errorf("%s: published\n%v\nshown\n%v", id, got[id], api.truth[id])
		}
	}
}

func TestTwoPoolsThatDoNotKnowOfEachOther(t *testing.T) {
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
	api := newFakeAPI("d")
	answers := []string{
		at(1, 1, `"alerts":["SOS","SpeedLimit","SOS"]`, `"alertTexts":["Help"]`, `"hasCriticalAlert":true`),
		at(2, 2, `"alerts":["SOS"]`),
		at(3, 3, `"alerts":"broken"`), // tells nothing of alerts
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
// process had died between the location and them.
func TestEdgesThatACrashCutOff(t *testing.T) {
	api := newFakeAPI("d")
	api.show("d", at(1, 1, `"alerts":["SOS","Door"]`))
	srv := natstest.Start(t)
	r := newRig(t, srv, api, options())
	r.until("the last edge", body(`"alert":"Door"`))
	r.stop()
	st, err := r.pub.JetStream().Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context(), jetstream.WithPurgeSubject(subjects.Alert("d", "Door"))); err != nil {
		t.Fatal(err)
	}
	before := len(r.events())
	r = newRig(t, srv, api, options())
	r.polls("d", 5)
	r.stop()
	equal(t, summary(r.events())[before:], []string{"alert.d.Door raised"})
}

func TestSilent(t *testing.T) {
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
	r = newRig(t, srv, api, o) // remembers that it was told
	r.polls("d", 5)
	api.show("d", at(2, 2))
	r.until("silence to end", body(`"state":"cleared"`))
	r.stop()
	equal(t, without(summary(r.events()), "device")[:4], []string{"location.d 1", "alert.d.silent raised", "location.d 2", "alert.d.silent cleared"})
}

func TestDeviceEvents(t *testing.T) {
	api := newFakeAPI("a", "b")
	srv := natstest.Start(t)
	r := newRig(t, srv, api, options())
	r.until("b", body(`"deviceId":"b"`))
	api.set(func() { api.list[0] = `{"id":"a","name":"New name"}` })
	r.until("the change", body(`"change":"changed"`))
	api.setList("a") // a changes its name back, b is gone
	r.until("the removal", body(`"change":"removed"`))
	api.set(func() { api.listErr = errors.New("down"); api.list = nil })
	r.polls("a", 20)
	r.stop()
	got := summary(r.events())
	slices.Sort(got)
	equal(t, got, []string{"device.a added", "device.a changed", "device.a changed", "device.b added", "device.b removed"})

	// While it was down: a changed, b came back. Nothing is told twice.
	before := len(r.events())
	api.set(func() {
		api.listErr = nil
		api.list = []string{`{"name":"Other","id":"a"}`, `{"id":"b"}`, `{"id":"b","name":"twice"}`, `{"id":"old","expires":"2020-01-01T00:00:00Z"}`}
	})
	r = newRig(t, srv, api, options())
	r.polls("b", 5)
	r.stop()
	got = summary(r.events())[before:]
	slices.Sort(got)
	equal(t, got, []string{"device.a changed", "device.b added"})
	if api.polls["old"] != 0 {
		t.Error("an expired device was polled")
	}
}

func TestEmptyListRemovesNobodyUntilConfirmed(t *testing.T) {
	api := newFakeAPI("a")
	r := newRig(t, natstest.Start(t), api, options())
	r.until("a", body(`"change":"added"`))
	p := r.pool
	if told, _ := p.update(nil, nil); len(told) != 0 {
		t.Errorf("a first empty list tells %v", told)
	}
	api.setList()
	got := r.until("the removal", body(`"change":"removed"`))
	if e := got[len(got)-1]; !strings.Contains(e.body, `"device":{"id":"a","name":"Truck a"}`) {
		t.Errorf("removal %s does not show the device as it was", e.body)
	}
}

func TestEmptyGroupsStopNobodyUntilConfirmed(t *testing.T) {
	api := newFakeAPI("a", "b", "c")
	o := options()
	o.Refresh, o.Select = time.Hour, Selection{Groups: []string{"North"}}
	r := newRig(t, natstest.Start(t), api, o)
	r.polls("a", 3)
	active := func() bool {
		r.pool.mu.Lock()
		defer r.pool.mu.Unlock()
		return r.pool.byID["a"] != nil
	}
	for _, row := range []struct {
		empty int // answers
		want  bool
	}{{1, true}, {0, true}, {1, true}, {1, false}, {0, true}} {
		api.set(func() { api.groupless = row.empty })
		if _, err := r.pool.list(t.Context(), t.Context()); err != nil {
			t.Fatal(err)
		}
		if active() != row.want {
			t.Fatalf("%+v: polled is %v", row, active())
		}
	}
}

func TestSelection(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Selection
		want string
	}{
		{"all", Selection{}, "a a/x b c"},
		{"ids", Selection{Devices: []string{"a", "c"}}, "a c"},
		{"globs cross slashes", Selection{Devices: []string{"a*"}}, "a a/x"},
		{"excluded", Selection{Exclude: []string{"?"}}, "a/x"},
		{"groups by name and id", Selection{Groups: []string{"North", "g2"}}, "a b c"},
		{"groups and excluded", Selection{Groups: []string{"North"}, Exclude: []string{"b"}}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := newFakeAPI("a", "b", "c", "a/x")
			o := options()
			o.Select = tt.s
			r := newRig(t, natstest.Start(t), api, o)
			r.polls(strings.Fields(tt.want)[0], 5)
			r.stop()
			var got []string
			for id := range api.polls {
				got = append(got, id)
			}
			slices.Sort(got)
			equal(t, got, strings.Fields(tt.want))
		})
	}
}

func TestUnusableFixes(t *testing.T) {
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
			if _, err := parseFix([]byte(tt.raw), 1); !errors.Is(err, errFix) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to tell %q", err, tt.want)
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
		equal(t, without(summary(r.events()), "device"), []string{"location.good 1", "location.bad mended"})
	})
}

func TestHangingDevicesDoNotHoldUpOthers(t *testing.T) {
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
			r.pool.mu.Lock()
			failed = r.pool.byID[ids[i]] == nil || r.pool.byID[ids[i]].failures > 0 || ids[i] == "good"
			r.pool.mu.Unlock()
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
	good, hung := count()
	r.polls("good", 40)
	goodLater, hungLater := count()
	if g, h := goodLater-good, hungLater-hung; h > g {
		t.Errorf("%d polls of hanging devices beside %d of the one that answers: it is held up", h, g)
	}
	r.stop()
}

func TestBackfill(t *testing.T) {
	o := options()
	o.Backfill = true
	api := newFakeAPI("d")
	srv := natstest.Start(t)
	api.show("d", at(1, "first"))
	r := newRig(t, srv, api, o)
	r.until("the first", body("first"))
	api.set(func() {
		api.ranges["d"] = strings.Join([]string{at(12, 12), at(11, 11, `"alerts":["SOS"]`), at(1, "first"), at(20, "now"), at(12, 12), `{"bad":1}`, at(99, "later")}, ",")
		api.shown["d"] = at(20, "now")
	})
	r.until("the edge's end", body("cleared"))
	r.stop()
	equal(t, without(summary(r.events()), "device"), []string{
		"location.d first", "location.d backfilled 11", "alert.d.SOS raised", "location.d backfilled 12", "alert.d.SOS cleared", "location.d now",
	})
	if got, want := api.asked, []string{`locations d {"from":"2026-01-02T03:00:01Z","to":"2026-01-02T03:00:20Z"}`}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestBackfillThatFailsDoesNotKeepThePositionBack(t *testing.T) {
	for _, answer := range []string{"error", "refused"} {
		t.Run(answer, func(t *testing.T) {
			o := options()
			o.Backfill, o.AlertHistory = true, true
			api := newFakeAPI("d")
			api.show("d", at(1, "first"))
			r := newRig(t, natstest.Start(t), api, o)
			r.until("the first", body("first"))
			api.set(func() { api.ranges["d"], api.alerts["d"] = answer, answer; api.shown["d"] = at(20, "now") })
			got := r.until("the second", body("now"))
			if got := got[len(got)-1].header.Get(publisher.HeaderHistorySince); got != "2026-01-02T03:00:01Z" {
				t.Errorf("the history is still to be read from %q", got)
			}
			// Once the history answers again, it is asked from where it was not read.
			api.set(func() {
				api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:05Z","latitude":1,"longitude":2,"text":"late","alerts":["SOS"]}`
				api.ranges["d"], api.asked, api.shown["d"] = "", nil, at(30, "then")
			})
			r.until("the alert", body(`"source":"history"`))
		})
	}
}

// TestLastingGapTrouble: once a gap was given up, the fixes that follow are not
// held back each in its turn.
func TestLastingGapTrouble(t *testing.T) {
	o := options()
	o.Backfill = true
	api := newFakeAPI("d")
	api.show("d", at(1, "first"))
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the first", body("first"))
	api.set(func() { api.ranges["d"] = "error"; api.shown["d"] = at(20, "given up") })
	r.until("the one given up", body("given up"))
	api.set(func() { api.asked = nil })
	for i := range 5 {
		fix := fmt.Sprintf("live %d", i)
		api.show("d", at(30+10*i, fix))
		r.until(fix, body(fix))
	}
	api.set(func() {
		if len(api.asked) > 5 {
			t.Errorf("asked %d times what lay before five fixes, want once each at most", len(api.asked))
		}
	})
	// Once it can be read again, it is.
	api.set(func() { api.ranges["d"] = at(85, "between") })
	api.show("d", at(99, "last"))
	r.until("what lay between", body("between"))
}

func TestFixThatWaitsIsNoSecret(t *testing.T) {
	r := newRig(t, natstest.Start(t), newFakeAPI("d"), options())
	r.until("the device", func(e event) bool { return strings.HasPrefix(e.subject, "plaspy.device.") })
	r.pool.mu.Lock()
	d := r.pool.devices["d"]
	r.pool.mu.Unlock()
	for _, row := range []struct {
		name  string
		since time.Time
		says  bool
	}{
		{"a moment", time.Now(), false},
		{"a while", time.Now().Add(-10 * time.Second), true},
		{"over", time.Time{}, false},
	} {
		r.pool.waits(d, row.since)
		if got := r.pool.waitsLong(); (got != "") != row.says {
			t.Errorf("%s: says %q", row.name, got)
		}
	}
}

func TestAlertHistory(t *testing.T) {
	o := options()
	o.AlertHistory = true
	api := newFakeAPI("d")
	srv := natstest.Start(t)
	api.show("d", at(1, "first", `"alerts":["SOS"]`))
	r := newRig(t, srv, api, o)
	r.until("the first", body(`"alert":"SOS"`))
	row := func(second int, names string) string {
		return fmt.Sprintf(`{"dateTime":"2026-01-02T03:00:%02dZ","latitude":1,"longitude":2,"text":"t","alerts":[%s]}`, second, names)
	}
	api.set(func() {
		api.alerts["d"] = strings.Join([]string{row(9, `"B","A"`), row(5, `"SOS"`), row(9, `"A"`), row(20, `"Door"`), row(1, `"SOS"`), row(50, `"future"`), `{"alerts":["x"]}`}, ",")
		api.shown["d"] = at(20, "now", `"alerts":["Door"]`)
	})
	r.until("the edge", body(`"alert":"SOS","state":"cleared"`))
	r.stop()
	want := []string{
		"location.d first", "alert.d.SOS raised", "alert.d.SOS raised history", "alert.d.A raised history", "alert.d.B raised history",
		"location.d now", "alert.d.Door raised", "alert.d.SOS cleared",
	}
	equal(t, without(summary(r.events()), "device"), want)

	// After a restart nothing of it is told again, although the API still shows it.
	api.show("d", at(30, "third", `"alerts":["Door"]`))
	r = newRig(t, srv, api, o)
	r.until("the third", body("third"))
	r.stop()
	equal(t, without(summary(r.events()), "device"), append(want, "location.d third"))
}

func TestBrokerThatLostDataGetsTheNewestAgain(t *testing.T) {
	api := newFakeAPI("a", "b")
	api.show("a", at(1, "a1"))
	api.show("b", at(1, "b1"))
	r := newRig(t, natstest.Start(t), api, options())
	r.until("b", body("b1"))
	r.until("a", body("a1"))
	js := r.pub.JetStream()
	if err := js.DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{})); err != nil {
		t.Fatal(err)
	}
	r.pool.Resync()
	r.until("b again", body("b1"))
	r.until("a again", body("a1"))
	r.polls("a", 5)
	r.stop()
	got := without(summary(r.events()), "device")
	slices.Sort(got)
	equal(t, got, []string{"location.a a1", "location.b b1"})
}

// loseStream makes the stream anew, with the first messages of the old one.
func (r *rig) loseStream(keep int) {
	r.t.Helper()
	kept := r.events()[:keep]
	js := r.pub.JetStream()
	if err := js.DeleteStream(r.t.Context(), "PLASPY_EVENTS"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(r.t.Context(), js, subjects.Streams(publisher.StreamOptions{})); err != nil {
		r.t.Fatal(err)
	}
	for _, e := range kept {
		if _, err := js.PublishMsg(r.t.Context(), &nats.Msg{Subject: e.subject, Data: []byte(e.body), Header: e.header}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestEdgesThatTheBrokerLostAreToldAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		keep int // messages that the broker kept
		want []string
	}{
		{"all lost", 0, []string{"location.a 3", "alert.a.X raised"}},
		{"older copy", 2, []string{"location.a 1", "location.a 3", "alert.a.X raised"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := newFakeAPI("a")
			o := options()
			o.Refresh = time.Hour
			api.show("a", at(1, 1))
			r := newRig(t, natstest.Start(t), api, o)
			r.until("the first fix", body(`"v":1`))
			api.show("a", at(2, 2, `"alerts":["X"]`))
			r.until("the alert", func(e event) bool { return e.subject == "plaspy.alert.a.X" })
			r.polls("a", 2) // its chain is done
			r.loseStream(test.keep)
			// The loss is found by the fence, before anybody has noticed it.
			api.show("a", at(3, 3, `"alerts":["X"]`))
			list := r.until("the alert again", func(e event) bool { return e.subject == "plaspy.alert.a.X" })
			equal(t, without(summary(list), "device"), test.want)
		})
	}
}

func TestDevicesThatTheBrokerLostAreToldAgain(t *testing.T) {
	api := newFakeAPI("a")
	o := options()
	o.Refresh = time.Hour
	api.show("a", at(1, 1))
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the first fix", body(`"v":1`))
	r.polls("a", 2)
	r.loseStream(0)
	api.show("a", at(2, 2))
	r.until("the next fix", body(`"v":2`)) // the stream knows the device, but was not told that it was added
	r.pool.Resync()
	r.until("its addition", func(e event) bool { return e.subject == "plaspy.device.a" })
}

func TestOwnership(t *testing.T) {
	api := newFakeAPI("a", "b")
	api.show("a", at(1, "a1"))
	api.show("b", at(1, "b1"))
	r := newRig(t, natstest.Start(t), api, options())
	r.pool.Own(func(token string) bool { return token == "a" })
	r.until("a", body("a1"))
	r.polls("a", 5)
	before := func() (n int) { api.set(func() { n = api.polls["b"] }); return n }
	polls := before()
	r.polls("a", 10)
	if n := before(); n > polls {
		t.Errorf("b is polled although another replica owns it")
	}
	r.pool.Own(func(token string) bool { return token == "b" })
	r.until("b", body("b1"))
}

func TestDailyResults(t *testing.T) {
	o := options()
	o.DailyResults = 12
	api := newFakeAPI("d", "other")
	n := 0
	api.next["d"] = func(int) (string, error) { n++; return at(n, n), nil }
	r := newRig(t, natstest.Start(t), api, o)
	r.polls("other", 60) // never reports, and uses nothing
	r.stop()
	if got := api.polls["d"]; got != minHead {
		t.Errorf("%d results used at once, want the head start of %d", got, minHead)
	}
}

func TestWhy(t *testing.T) {
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
	want := []string{"changed 2 its first fix", "unchanged 0", "location not usable 0 location is not usable: it has no dateTime", "error 0 last_location: status 500: uncontrolled error"}
	if len(got) < len(want) {
		t.Fatalf("decisions %q", got)
	}
	equal(t, got[:len(want)], want)
	if last := why.Decisions[len(why.Decisions)-1]; last.Sequence != 3 || len(last.ID) != 32 || last.At.IsZero() {
		t.Errorf("the first decision tells %+v of what was published", last)
	}
	if _, ok := r.pool.Why("nobody"); ok {
		t.Error("a device that is not polled here has a reason")
	}
}

// TestManyDevicesComeUnderCareAtOnce is about the thousand consumers that a
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
	r.pool.Own(func(string) bool { return true })
	seen := map[string]bool{}
	r.until("all devices", func(e event) bool {
		if strings.HasPrefix(e.subject, "plaspy.location.") {
			seen[e.subject] = true
		}
		return len(seen) == devices
	})
	st, err := r.pub.JetStream().Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Consumers; n > 10 {
		t.Errorf("%d consumers are left on the stream", n)
	}
}

func TestAgedOutLocationIsNotNews(t *testing.T) {
	api := newFakeAPI("parked")
	api.show("parked", at(1, 1, `"alerts":["SOS"]`))
	r := newRig(t, natstest.Start(t), api, options())
	r.until("the edge", body(`"alert":"SOS"`))
	kv, err := r.pub.JetStream().KeyValue(t.Context(), subjects.LastBucket())
	if err != nil {
		t.Fatal(err)
	}
	watch, err := kv.Watch(t.Context(), "parked")
	if err != nil {
		t.Fatal(err)
	}
	for entry := <-watch.Updates(); entry == nil; entry = <-watch.Updates() {
		continue // the end of what was there at first
	}
	if err := watch.Stop(); err != nil {
		t.Fatal(err)
	}
	r.polls("parked", 2)
	st, err := r.pub.JetStream().Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context()); err != nil { // what retention does
		t.Fatal(err)
	}
	d := r.pool.byID["parked"]
	r.pool.doubt(d)
	r.polls("parked", 3)
	r.pool.Own(func(string) bool { return false })
	r.pool.Own(func(string) bool { return true })
	r.polls("parked", 3)
	r.stop()
	if got := summary(r.events()); len(got) != 0 {
		t.Errorf("published again: %v", got)
	}
}

func TestLostDeviceEventsAreToldByWhoeverComesToOwnThem(t *testing.T) {
	api := newFakeAPI("a", "b")
	o := options()
	o.Refresh = time.Hour
	srv := natstest.Start(t)
	r := newRig(t, srv, api, o)
	r.pool.Own(func(token string) bool { return token == "a" })
	r.until("a", body(`"deviceId":"a"`))
	r.polls("a", 2)
	r.pool.Own(func(string) bool { return true })
	r.until("b", body(`"deviceId":"b"`))
}
