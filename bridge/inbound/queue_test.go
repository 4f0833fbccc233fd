package inbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/publisher/natstest"
)

// TestOddSubjects: messages to subjects that name no device, wildcards among them,
// become dead letters, and take no other message with them, however many there are.
func TestOddSubjects(t *testing.T) {
	t.Parallel()
	for _, leader := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader %v", leader), func(t *testing.T) {
			r := newRig(t)
			odd := []string{"plaspy.in.location.*", "plaspy.in.*.*", "plaspy.in.>", "plaspy.in.location.>", "plaspy.in.foo.dev1", "plaspy.in.location.dev1.x", "plaspy.in.location.=41", "plaspy.in.location"}
			const each, n, devices = 40, 200, 4
			for i := range each * len(odd) {
				if _, err := r.js.PublishMsgAsync(&nats.Msg{Subject: odd[i%len(odd)], Data: location(i)}); err != nil {
					t.Fatal(err)
				}
			}
			<-r.js.PublishAsyncComplete()
			r.putMany(n, func(i int) string { return device(i % devices) })
			api := newFakeAPI(nil)
			api.delay = time.Millisecond
			run(t, r.consumer(api, func(c *Consumer) {
				c.leader.Store(leader)
				limits := c.opt.limits()
				limits.Messages = 16 // so that most messages are left to the stream
				c.lanes = lane.New(limits)
			}))
			r.waitCount(subjects.Inbound(), 0)
			if took := api.accepted(); len(took) != n {
				t.Errorf("%d posts for %d messages", len(took), n)
			}
			if again := checkOrder(t, api.accepted(), n); again != 0 {
				t.Errorf("%d posted twice", again)
			}
			api.checkOverlap(t)
			r.waitCount(subjects.DeadLetters(), each*len(odd))
		})
	}
}

// TestHeadersOfTheServer: a producer that sets the headers with which the server
// answers a read changes neither the device nor the order of its message.
func TestHeadersOfTheServer(t *testing.T) {
	r := newRig(t)
	r.put(subjects.InLocation("truck8"), location(1),
		"Nats-Subject", subjects.InLocation("truck7"), "Nats-Sequence", "1", "Nats-Stream", "OTHER", "Nats-Time-Stamp", "2000-01-01T00:00:00Z", "Nats-Num-Pending", "0")
	r.put(subjects.InLocation("truck9"), nil, "Status", "404")
	r.put(subjects.InLocation("truck9"), location(2))
	q, err := openQueue(t.Context(), r.js, subjects, false, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	list, through, err := q.scan(t.Context(), 1, 3)
	if err != nil || len(list) != 3 || through != 3 {
		t.Fatalf("%d messages through %d, %v", len(list), through, err)
	}
	m := list[0]
	if m.Address.Device != "truck8" || m.Seq != 1 || m.Header["Nats-Subject"][0] != subjects.InLocation("truck7") || len(m.Header["Nats-Sequence"]) != 1 {
		t.Errorf("got %+v", m.Message)
	}
	leader, err := q.get(t.Context(), request{Seq: 1})
	if err != nil || !leader.At.Equal(m.At) || len(leader.Header) != len(m.Header) {
		t.Errorf("the leader has %+v, %v", leader, err)
	}
	api := newFakeAPI(nil)
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	for _, p := range api.accepted() {
		if p.device == "truck7" {
			t.Error("posted for the device of a header")
		}
	}
}

// TestMirror: a mirror of the inbound stream, which keeps finished messages and may
// answer direct gets, is not believed.
func TestMirror(t *testing.T) {
	t.Parallel()
	const n = 300
	r := newRig(t)
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	// A mirror of a work queue takes its messages away; one of a limits stream does not.
	if _, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: subjects.Inbound(), Subjects: []string{"plaspy.in.>"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	r.putMany(n, func(i int) string { return device(i % 7) })
	mirror := jetstream.StreamConfig{Name: "COPY", Mirror: &jetstream.StreamSource{Name: subjects.Inbound()}, MirrorDirect: true, AllowDirect: true}
	if _, err := r.js.CreateStream(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	r.waitCount("COPY", n)
	api := newFakeAPI(nil)
	c := r.consumer(api)
	run(t, c)
	r.waitCount(subjects.Inbound(), 0)
	r.putMany(n, func(i int) string { return device(i % 7) })
	r.waitCount(subjects.Inbound(), 0)
	if got := len(api.accepted()); got != 2*n {
		t.Errorf("%d posts of %d messages", got, 2*n)
	}
}

// TestNoDirectGets: a user that may not send direct gets, and a stream that has
// none, cost more requests and nothing else.
func TestNoDirectGets(t *testing.T) {
	t.Parallel()
	const n = 200
	t.Run("stream", func(t *testing.T) {
		r := newRig(t)
		cfg := r.inbound().CachedInfo().Config
		cfg.AllowDirect = false
		if _, err := r.js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		api := newFakeAPI(nil)
		r.putMany(n, func(i int) string { return device(i % 7) })
		run(t, r.consumer(api))
		r.waitCount(subjects.Inbound(), 0)
		checkOrder(t, api.accepted(), n)
	})
	t.Run("permission", func(t *testing.T) {
		r := newRig(t, natstest.Listen, denied("$JS.API.DIRECT.GET.>"))
		api := newFakeAPI(nil)
		r.putMany(n, func(i int) string { return device(i % 7) })
		c := r.consumer(api, func(c *Consumer) { c.opt.JetStream, c.opt.request = r.user(t), 2*time.Second })
		run(t, c)
		r.waitCount(subjects.Inbound(), 0)
		checkOrder(t, api.accepted(), n)
		if c.Trouble() != "" {
			t.Errorf("trouble: %s", c.Trouble())
		}
	})
}

// denied starts a server with a user "bridge" that may not publish to a subject.
func denied(subject string) func(*server.Options) {
	return func(o *server.Options) {
		o.NoAuthUser = "admin"
		o.Users = []*server.User{
			{Username: "bridge", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{subject}}}},
			{Username: "admin", Password: "p"},
		}
	}
}

// user connects as the user of denied.
func (r *rig) user(t *testing.T) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(r.srv.ClientURL(), nats.UserInfo("bridge", "p"), nats.Timeout(time.Minute), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js := natstest.JetStream(t, nc)
	return js
}

// TestUnansweredReads: reads that the server does not answer are reported.
func TestUnansweredReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Listen, denied("$JS.API.STREAM.INFO.PLASPY_INBOUND"))
	r.put(subjects.InLocation("dev1"), location(1))
	c := r.consumer(newFakeAPI(nil), func(c *Consumer) { c.opt.JetStream, c.opt.request = r.user(t), 100*time.Millisecond })
	run(t, c)
	natstest.Eventually(t, "trouble", func() bool { return strings.Contains(c.Trouble(), subjects.Inbound()) })
}

// TestStreamMadeAnew: a stream that is deleted and made again while the consumer
// runs is read from its first message on.
func TestStreamMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := newFakeAPI(nil)
	r.putMany(100, func(i int) string { return device(i % 7) })
	c := r.consumer(api)
	run(t, c)
	r.waitCount(subjects.Inbound(), 0)
	cfg := r.inbound().CachedInfo().Config
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the loss is noticed", func() bool { return c.Trouble() != "" })
	if _, err := r.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		r.put(subjects.InLocation(device(i%7)), location(100+i))
	}
	r.waitCount(subjects.Inbound(), 0)
	checkOrder(t, api.accepted(), 150)
}

// TestStreamRecreatedWhileRecording: if the stream is deleted before the bridge could
// delete a posted message from it, the message with the same sequence in the next
// stream is not deleted in its place.
func TestStreamRecreatedWhileRecording(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.inbound().CachedInfo().Config
	api := newFakeAPI(func(_ string, try int, _ []byte) error {
		if try == 1 {
			return r.js.DeleteStream(context.Background(), subjects.Inbound())
		}
		return nil
	})
	c := r.consumer(api, func(c *Consumer) { c.opt.pause = 100 * time.Millisecond })
	first := r.put(subjects.InLocation("d"), location(0))
	run(t, c)
	natstest.Eventually(t, "the message cannot be deleted", func() bool { return strings.Contains(c.Trouble(), "delete message") })
	if _, err := r.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if second := r.put(subjects.InLocation("d"), location(1)); second != first {
		t.Fatalf("sequences %d and %d, want the same", first, second)
	}
	api.waitFor(t, "post of the message in the new stream", func(took []accepted) bool { return len(took) == 2 })
	r.waitCount(subjects.Inbound(), 0)
	r.waitCount(subjects.Results(), 2)
}

// TestRemovalFromAnotherStream: once the bridge knows that the stream was created again,
// it deletes a posted message only if that is the one with its sequence.
func TestRemovalFromAnotherStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	st := r.inbound()
	seq := r.put(subjects.InLocation("d"), location(0))
	old, err := st.GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	q, err := openQueue(t.Context(), r.js, subjects, false, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.consumer(newFakeAPI(nil)).newRecorder(q)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.x.close()
	if err := r.js.DeleteStream(t.Context(), subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.CreateStream(t.Context(), st.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	if again := r.put(subjects.InLocation("d"), location(1)); again != seq {
		t.Fatalf("sequences %d and %d, want the same", seq, again)
	}
	if _, err := q.look(t.Context()); !errors.Is(err, errAgain) {
		t.Fatalf("got %v, want errAgain", err)
	}
	errs := make([]error, 1)
	rec.remove(t.Context(), []*recordJob{{seq: seq, at: old.Time, connection: q.connection()}}, errs)
	if n := r.count(subjects.Inbound()); n != 1 || errs[0] != nil {
		t.Errorf("%d messages and %v, want the new message", n, errs[0])
	}
}
