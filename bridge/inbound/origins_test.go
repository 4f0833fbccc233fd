package inbound

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"plaspy-bridge/publisher/natstest"
)

func TestOrigins(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC)
	o := NewOrigins()
	o.add("d", fix{at, 4.7, -74.1})
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

func TestOriginsBounds(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC)
	o := NewOrigins()
	for i := range 3 * originsPerDevice {
		o.add("busy", fix{at.Add(time.Duration(i) * time.Second), 1, 1})
	}
	if o.Posted("busy", at, 1, 1) || !o.Posted("busy", at.Add((3*originsPerDevice-1)*time.Second), 1, 1) {
		t.Error("the oldest of a device has to go")
	}
	for i := range originsInAll + 100 {
		o.add(device(i), fix{at, 1, 1})
	}
	if len(o.order) != originsInAll || len(o.devices) > originsInAll {
		t.Errorf("%d postings of %d devices", len(o.order), len(o.devices))
	}
	if !o.Posted(device(originsInAll+99), at, 1, 1) || o.Posted(device(0), at, 1, 1) {
		t.Error("the oldest of all have to go")
	}
}

func TestFixRoundTrip(t *testing.T) {
	want := fix{time.Date(2026, 1, 2, 3, 4, 1, 123456789, time.UTC), -4.700000000000001, 179.99999999}
	if got, err := parseFix(want.String()); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{"", "x", "2026-01-02T03:04:01Z 1", "x 1 2", "2026-01-02T03:04:01Z a 2"} {
		if _, err := parseFix(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// TestOriginsFollow: what one replica posted, another one knows, also if it is
// started afterwards.
func TestOriginsFollow(t *testing.T) {
	r := newRig(t)
	own := NewOrigins()
	run(t, r.consumer(newFakeAPI(nil), func(c *Consumer) { c.opt.Origins = own }))
	r.put("plaspy.in.location.dev=201", location(1))
	r.waitCount(subjects.Results(), 1)
	at := time.Date(2026, 1, 2, 3, 4, 1, 0, time.UTC)
	if !own.Posted("dev=201", at, 4.7, -74.1) {
		t.Error("the replica that posted does not know it")
	}
	other := NewOrigins()
	natstest.Run(t, func(ctx context.Context) { other.Run(ctx, r.js, subjects, slog.New(slog.DiscardHandler)) })
	waitPosted(t, other, "dev=201", at)
	r.put("plaspy.in.location.late", location(2))
	waitPosted(t, other, "late", at)
}

func waitPosted(t *testing.T, o *Origins, token string, at time.Time) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !o.Posted(token, at, 4.7, -74.1); {
		if time.Now().After(end) {
			t.Fatalf("%s is not learned of", token)
		}
		<-time.After(5 * time.Millisecond)
	}
}
