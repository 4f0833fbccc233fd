package outbound

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestDeviceEvents(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	srv := natstest.Start(t)
	r := newRig(t, srv, api, options())
	r.until("b", body(`"deviceId":"b"`))
	api.set(func() { api.list[0] = `{"id":"a","name":"New name"}` })
	r.until("the change", body(`"change":"changed"`))
	api.setList("a") // a changes its name back, b is gone
	r.until("the removal", body(`"change":"removed"`))
	natstest.Eventually(t, "the second change", func() bool { return len(r.events()) >= 5 })
	api.set(func() { api.listErr = errors.New("down"); api.list = nil })
	r.polls("a", 20)
	r.stop()
	got := summary(r.events())
	slices.Sort(got)
	equal(t, got, []string{"device.a added", "device.a changed", "device.a changed", "device.b added", "device.b removed"})

	// While it was down: a changed, b came back. Nothing is published twice.
	before := len(r.events())
	api.set(func() {
		api.listErr = nil
		api.list = []string{`{"name":"Other","id":"a"}`, `{"id":"b"}`, `{"id":"b","name":"twice"}`, `{"id":"old","expires":"2020-01-01T00:00:00Z"}`}
	})
	r = newRig(t, srv, api, options())
	natstest.Eventually(t, "both events", func() bool { return len(r.events()) >= before+2 })
	r.polls("b", 5)
	r.stop()
	got = summary(r.events())[before:]
	slices.Sort(got)
	equal(t, got, []string{"device.a changed", "device.b added"})
	if api.polls["old"] != 0 {
		t.Error("an expired device was polled")
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		s    inventory.Selection
		want string
	}{
		{"all", inventory.Selection{}, "a a/x b c"},
		{"ids", inventory.Selection{Devices: []string{"a", "c"}}, "a c"},
		{"globs cross slashes", inventory.Selection{Devices: []string{"a*"}}, "a a/x"},
		{"excluded", inventory.Selection{Exclude: []string{"?"}}, "a/x"},
		{"groups by name and id", inventory.Selection{Groups: []string{"North", "g2"}}, "a b c"},
		{"groups and excluded", inventory.Selection{Groups: []string{"North"}, Exclude: []string{"b"}}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := newFakeAPI("a", "b", "c", "a/x")
			o := options()
			o.Select = tt.s
			r := newRig(t, natstest.Start(t), api, o)
			natstest.Eventually(t, "all are polled", func() bool {
				return !slices.ContainsFunc(strings.Fields(tt.want), func(id string) bool { return r.polled(id) == 0 })
			})
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

// TestEntriesThatTheStreamCannotTake puts an entry above the server's limit and
// one that is not UTF-8 into the list: neither holds up a poll.
func TestEntriesThatTheStreamCannotTake(t *testing.T) {
	t.Parallel()
	o := options()
	o.Refresh = time.Hour
	api := newFakeAPI("a")
	api.show("a", at(1, 1))
	api.list = append(api.list, `{"id":"big","name":"`+strings.Repeat("x", 1100<<10)+`"}`, "{\"id\":\"latin\",\"name\":\"Cami\xf3n\"}")
	r := newRig(t, natstest.Start(t), api, o)
	r.polls("a", 40)
	r.polls("big", 2)
	got := r.until("latin", body(`"deviceId":"latin"`))
	if e := got[len(got)-1]; !utf8.ValidString(e.body) || !strings.Contains(e.body, "Cami\uFFFDn") {
		t.Errorf("event %q", e.body)
	}
	r.stop()
	if api.lists != 1 {
		t.Errorf("the list was read %d times", api.lists)
	}
}

// TestRemovedDeviceLeavesTheBucket: the last position of a removed device goes,
// and comes back with the device although the API shows nothing new of it.
func TestRemovedDeviceLeavesTheBucket(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	api.show("a", at(1, "a"))
	api.show("b", at(1, "b"))
	o := options()
	srv := natstest.Start(t)
	r := newRigWith(t, srv, api, api, o, func(r *rig, p *Parts) { p.Positions = r.pub.Positions() })
	kv, err := natstest.Own(t, r.pub).KeyValue(t.Context(), subjects.LastBucket())
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.Watch(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	next := func(what string, want jetstream.KeyValueOp) jetstream.KeyValueEntry {
		t.Helper()
		for {
			select {
			case e := <-w.Updates():
				if e == nil {
					continue // the state before has ended
				}
				if e.Operation() != want {
					t.Fatalf("%s: got a %v", what, e.Operation())
				}
				return e
			case <-time.After(time.Minute):
				t.Fatalf("%s: the bucket does not change", what)
			}
		}
	}
	first := next("published", jetstream.KeyValuePut)
	api.setList("a")
	next("removed", jetstream.KeyValueDelete)
	r.until("the removal", body(`"change":"removed"`))
	natstest.Eventually(t, "the other device is in the bucket", func() bool {
		_, err := kv.Get(t.Context(), "a")
		return err == nil
	})
	api.setList("a", "b")
	if again := next("returned", jetstream.KeyValuePut); string(again.Value()) != string(first.Value()) {
		t.Errorf("got %s, want %s", again.Value(), first.Value())
	}
	r.stop()
}

func TestEventsCarryGroups(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		api := newFakeAPI("a", "alone")
		api.show("a", at(1, 1, `"alerts":["SOS"]`))
		api.show("alone", at(1, 2))
		o := options()
		o.EventGroups = on
		r := newRig(t, natstest.Start(t), api, o)
		r.until("the alert", body(`"alert":"SOS"`))
		r.until("the other", body(`"v":2`))
		r.stop()
		for _, e := range r.events() {
			groups, header := "", ""
			switch {
			case !on || strings.HasPrefix(e.subject, "plaspy.device."):
			case strings.Contains(e.subject, "alone"):
				groups = `"groups":[],`
			default:
				groups, header = `"groups":["g1"],`, "g1"
			}
			if !strings.Contains(e.body, groups) || groups == "" && strings.Contains(e.body, "groups") || e.header.Get(publisher.HeaderGroups) != header {
				t.Errorf("%v: %s: %s %v", on, e.subject, e.body, e.header)
			}
		}
	}
}
