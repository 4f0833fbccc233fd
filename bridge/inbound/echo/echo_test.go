package echo

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

const subjects publisher.Subjects = "plaspy"

func device(i int) string { return fmt.Sprintf("dev%d", i) }

func TestPosted(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC)
	o := New()
	o.Taken("d", message.Fix{At: at, Lat: 4.7, Lon: -74.1})
	for _, tt := range []struct {
		name     string
		token    string
		at       time.Time
		lat, lon float64
		want     bool
	}{
		{"the same", "d", at, 4.7, -74.1, true},
		{"in another zone and spelling", "d", at.In(time.FixedZone("", 3600)), 4.70000001, -74.1, true},
		{"another device", "e", at, 4.7, -74.1, false},
		{"another time", "d", at.Add(time.Second), 4.7, -74.1, false},
		{"another place", "d", at, 4.7001, -74.1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := o.Posted(tt.token, tt.at, tt.lat, tt.lon); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC)
	o := New()
	for i := range 3 * perDevice {
		o.Taken("busy", message.Fix{At: at.Add(time.Duration(i) * time.Second), Lat: 1, Lon: 1})
	}
	if o.Posted("busy", at, 1, 1) || !o.Posted("busy", at.Add((3*perDevice-1)*time.Second), 1, 1) {
		t.Error("the oldest of a device is not dropped")
	}
	for i := range inAll + 100 {
		o.Taken(device(i), message.Fix{At: at, Lat: 1, Lon: 1})
	}
	if len(o.order) != inAll || len(o.devices) > inAll {
		t.Errorf("%d postings of %d devices", len(o.order), len(o.devices))
	}
	if !o.Posted(device(inAll+99), at, 1, 1) || o.Posted(device(0), at, 1, 1) {
		t.Error("the oldest of all are not dropped")
	}
}

// TestRefused: a fix that the API refused is not one that the bridge posted, but
// for one that the API took before.
func TestRefused(t *testing.T) {
	f := message.Fix{At: time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC), Lat: 4.7, Lon: -74.1}
	o := New()
	o.Sending("d", f)
	if !o.Posted("d", f.At, f.Lat, f.Lon) {
		t.Error("a fix that is being posted is not recognized")
	}
	o.Sending("d", f) // the next try
	o.Refused("d", f)
	if o.Posted("d", f.At, f.Lat, f.Lon) || len(o.order) != 0 || len(o.devices) != 0 {
		t.Errorf("a refused fix is remembered: %v", o.devices)
	}
	o.Taken("d", f)
	o.Sending("d", f)
	o.Refused("d", f)
	if !o.Posted("d", f.At, f.Lat, f.Lon) {
		t.Error("after the refusal of a second post the first is forgotten")
	}
}

// rig is a server with the bridge's streams.
type rig struct {
	t  *testing.T
	js jetstream.JetStream
}

func newRig(t *testing.T) *rig {
	t.Helper()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	if _, err := publisher.EnsureStreams(t.Context(), js, subjects.Streams(publisher.StreamOptions{Inbound: true})); err != nil {
		t.Fatal(err)
	}
	return &rig{t, js}
}

// posted stores the result of a location.
func (r *rig) posted(token string, f message.Fix) {
	r.t.Helper()
	m := nats.NewMsg(subjects.Result("location", token))
	m.Header.Set(message.HeaderPosted, f.String())
	m.Header.Set(publisher.HeaderSubject, token)
	if _, err := r.js.PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// TestFollow: the tracker knows the posts from before it began and the later
// ones.
func TestFollow(t *testing.T) {
	r, f := newRig(t), message.Fix{At: time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC), Lat: 4.7, Lon: -74.1}
	r.posted("dev=201", f)
	o := New()
	natstest.Run(t, func(ctx context.Context) { o.Run(ctx, r.js, subjects, slog.New(slog.DiscardHandler)) })
	waitPosted(t, o, "dev=201", f.At)
	r.posted("late", f)
	waitPosted(t, o, "late", f.At)
}

// TestFollowLater: a first look that fails costs no memory of the day before.
func TestFollowLater(t *testing.T) {
	r, f := newRig(t), message.Fix{At: time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC), Lat: 4.7, Lon: -74.1}
	r.posted("d", f)
	o, since := New(), time.Now().Add(-ttl)
	before := since
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.follow(ctx, r.js, subjects, &since); err == nil || !since.Equal(before) {
		t.Fatalf("a look that read nothing moved since by %v, err %v", since.Sub(before), err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.follow(ctx, r.js, subjects, &since) // it ends with ctx
	}()
	waitPosted(t, o, "d", f.At)
	cancel()
	<-done
	if since.Equal(before) || since.After(time.Now()) {
		t.Errorf("since is %v, want the time of the result", since)
	}
}

func waitPosted(t *testing.T, o *Tracker, token string, at time.Time) {
	t.Helper()
	natstest.Eventually(t, token+" is recorded", func() bool { return o.Posted(token, at, 4.7, -74.1) })
}
