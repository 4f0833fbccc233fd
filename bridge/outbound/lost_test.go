package outbound

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestBrokerThatLostDataGetsTheNewestAgain(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	api.show("a", at(1, "a1"))
	api.show("b", at(1, "b1"))
	r := newRig(t, natstest.Start(t), api, options())
	r.until("b", body("b1"))
	r.until("a", body("a1"))
	r.loseStream(0)
	r.pool.Resync()
	r.until("b again", body("b1"))
	r.until("a again", body("a1"))
	r.polls("a", 5)
	r.stop()
	got := withoutDevices(summary(r.events()))
	slices.Sort(got)
	equal(t, got, []string{"location.a a1", "location.b b1"})
}

// loseStream creates the stream again, with the first messages of the old one.
func (r *rig) loseStream(keep int) {
	r.t.Helper()
	kept := r.events()[:keep]
	js := natstest.Own(r.t, r.pub)
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

func TestEdgesThatTheBrokerLostArePublishedAgain(t *testing.T) {
	t.Parallel()
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
			// The fence detects the loss first.
			api.show("a", at(3, 3, `"alerts":["X"]`))
			list := r.until("the alert again", func(e event) bool { return e.subject == "plaspy.alert.a.X" })
			equal(t, withoutDevices(summary(list)), test.want)
		})
	}
}

func TestDevicesThatTheBrokerLostArePublishedAgain(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a")
	o := options()
	o.Refresh, o.minReread = time.Hour, 100*time.Millisecond
	api.show("a", at(1, 1))
	r := newRig(t, natstest.Start(t), api, o)
	r.until("the first fix", body(`"v":1`))
	r.polls("a", 2)
	r.loseStream(0)
	api.show("a", at(2, 2))
	r.until("the next fix", body(`"v":2`)) // the stream knows the device, but not that it was added
	r.pool.Resync()
	r.until("its addition", func(e event) bool { return e.subject == "plaspy.device.a" })
}

// TestAgedOutLocationIsNotNews lets the location of a parked device age out. It is published
// again only after the stream itself was lost.
func TestAgedOutLocationIsNotNews(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("parked")
	api.show("parked", at(1, 1, `"alerts":["SOS"]`))
	r := newRig(t, natstest.Start(t), api, options())
	r.until("the edge", body(`"alert":"SOS"`))
	r.until("its addition", body(`"change":"added"`)) // another goroutine publishes it
	kv, err := natstest.Own(t, r.pub).KeyValue(t.Context(), subjects.LastBucket())
	if err != nil {
		t.Fatal(err)
	}
	watch, err := kv.Watch(t.Context(), "parked")
	if err != nil {
		t.Fatal(err)
	}
	for entry := <-watch.Updates(); entry == nil; entry = <-watch.Updates() {
		continue // the end of the first events
	}
	if err := watch.Stop(); err != nil {
		t.Fatal(err)
	}
	r.ageOut()
	reread := func() {
		r.pool.fleet.mu.Lock()
		defer r.pool.fleet.mu.Unlock()
		r.pool.fleet.devices.polled("parked").reread = true
	}
	reread()
	r.forgetPolls()
	r.polls("parked", 3)
	r.own(func(string) bool { return false })
	r.own(func(string) bool { return true })
	r.forgetPolls()
	r.polls("parked", 3) // the state is read before them
	if got := summary(r.events()); len(got) != 0 {
		t.Errorf("published again: %v", got)
	}
	r.loseStream(0)
	reread()
	r.until("the alert in the new stream", body(`"alert":"SOS"`))
}

func TestLostDeviceEventsArePublishedByTheNewOwner(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	o := options()
	o.Refresh = time.Hour
	srv := natstest.Start(t)
	r := newRig(t, srv, api, o)
	r.own(func(token string) bool { return token == "a" })
	r.until("a", body(`"deviceId":"a"`))
	r.polls("a", 2)
	r.own(func(string) bool { return true })
	r.until("b", body(`"deviceId":"b"`))
}
