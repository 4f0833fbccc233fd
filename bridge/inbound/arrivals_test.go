package inbound

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher/natstest"
)

// TestAnnounced: a message wakes a reader that would not look for an hour.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := newArrivals(r.srv.Client(t), subjects.InboundAll())
	defer a.close()
	a.idle = time.Hour
	r.announce(a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if a.await(ctx); ctx.Err() != nil || a.idle != shortestLook {
		t.Errorf("the next look is after %v, %v", a.idle, ctx.Err())
	}
}

// announce publishes until an announcement has arrived.
func (r *rig) announce(a *arrivals) {
	r.t.Helper()
	natstest.Eventually(r.t, "an announcement", func() bool {
		r.put(subjects.InAlert("dev1"), location(1))
		return len(a.came) > 0
	})
}

// TestUnheralded: after a message that was not announced the looks are frequent, until
// one is announced again.
func TestUnheralded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := newArrivals(r.srv.Client(t), subjects.InboundAll())
	defer a.close()
	if a.longest != announcedLook {
		t.Errorf("at first the longest wait is %v", a.longest)
	}
	a.idle = 2 * unheraldedLook
	a.await(t.Context())
	if a.found(); a.longest != unheraldedLook || a.idle != shortestLook {
		t.Errorf("the next look is after %v, the longest wait is %v", a.idle, a.longest)
	}
	r.announce(a)
	if a.await(t.Context()); a.longest != announcedLook {
		t.Errorf("after an announcement the longest wait is %v", a.longest)
	}
}

// TestSourcedInbound: messages that the stream takes from another one, which are not
// announced, are posted, and so are those of a user that may not subscribe.
func TestSourcedInbound(t *testing.T) {
	t.Parallel()
	const n = 20
	r := newRig(t, natstest.Listen, func(o *server.Options) {
		o.NoAuthUser = "admin"
		o.Users = []*server.User{
			{Username: "bridge", Password: "p", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{subjects.InboundAll()}}}},
			{Username: "admin", Password: "p"},
		}
	})
	ctx := t.Context()
	st, err := r.js.Stream(ctx, subjects.Inbound())
	if err != nil {
		t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	if err := r.js.DeleteStream(ctx, subjects.Inbound()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.CreateStream(ctx, jetstream.StreamConfig{Name: "GATEWAYS", Subjects: []string{"gateways.>"}}); err != nil {
		t.Fatal(err)
	}
	cfg.Sources = []*jetstream.StreamSource{{Name: "GATEWAYS", SubjectTransforms: []jetstream.SubjectTransformConfig{{
		Source: "gateways.*", Destination: subjects.InLocation("{{wildcard(1)}}"),
	}}}}
	if _, err := r.js.CreateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	api := newFakeAPI(nil)
	run(t, r.consumer(api, func(c *Consumer) { c.opt.JetStream = r.user(t) }))
	for i := range n {
		r.put("gateways."+device(i%3), location(i))
	}
	api.waitFor(t, "post of each message", func(took []accepted) bool { return len(took) == n })
}
