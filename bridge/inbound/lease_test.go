package inbound

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func (r *rig) bucket(js jetstream.JetStream) jetstream.KeyValue {
	r.t.Helper()
	kv, err := js.CreateOrUpdateKeyValue(r.t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_replicas"})
	if err != nil {
		r.t.Fatal(err)
	}
	return kv
}

// TestTakeover: of two replicas one posts; when it dies the other one takes
// over, in order, and not before the lease has run out.
func TestTakeover(t *testing.T) {
	const n = 2000
	const ttl = 800 * time.Millisecond
	r := newRig(t)
	var killed atomic.Int64
	api := newFakeAPI(nil)
	api.delay = time.Millisecond
	r.putMany(n, func(i int) string { return device(i % 20) })
	log := slog.New(slog.DiscardHandler)
	withLease := func(name string) func(*Consumer) {
		return func(c *Consumer) {
			c.opt.Lease = NewKVLease(r.bucket(c.opt.JetStream), "inbound", name, ttl, log)
			c.opt.Grace = time.Second
		}
	}
	life := &mortal{fakeAPI: api, dead: make(chan struct{}), killed: &killed}
	first := r.consumer(life, withLease("a"))
	stopFirst := run(t, first)
	api.waitFor(t, "first posts", func(took []accepted) bool { return len(took) > 10 })
	second := r.consumer(api, withLease("b"))
	stopSecond := run(t, second)
	api.waitFor(t, "more posts", func(took []accepted) bool { return len(took) > n/4 })
	if second.Status().Holding || !first.Status().Holding {
		t.Error("the second replica posts beside the first")
	}
	close(life.dead)
	first.opt.JetStream.Conn().Close()
	died := len(api.accepted())
	began := time.Now()
	api.waitFor(t, "takeover", func(took []accepted) bool { return len(took) > died+8 })
	if got := time.Since(began); got < ttl/2 || got > 10*ttl {
		t.Errorf("taken over after %v, with a time to live of %v", got, ttl)
	}
	stopFirst()
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), n); again > 8 {
		t.Errorf("%d posted twice, want at most 8", again)
	}
	api.checkOverlap(t, 8)

	// One that is told to stop is replaced at once.
	third := r.consumer(api, withLease("c"))
	run(t, third)
	r.put("plaspy.in.location.x", location(n))
	api.waitFor(t, "post of the second", func(took []accepted) bool { return took[len(took)-1].device == "x" })
	began = time.Now()
	stopSecond()
	r.put("plaspy.in.location.y", location(n+1))
	api.waitFor(t, "post of the third", func(took []accepted) bool { return took[len(took)-1].device == "y" })
	if got := time.Since(began); got > ttl {
		t.Errorf("replaced after %v, the lease was released", got)
	}
}

// TestLeaseLost: a holder that cannot renew stops on its own before another one
// may begin.
func TestLeaseLost(t *testing.T) {
	const ttl = 600 * time.Millisecond
	r := newRig(t)
	own := r.srv.Client(t)
	js, err := jetstream.New(own)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	term, err := NewKVLease(r.bucket(js), "inbound", "a", ttl, log).Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !term.Valid() {
		t.Fatal("not valid at once")
	}
	own.Close()
	began := time.Now()
	other := NewKVLease(r.bucket(r.js), "inbound", "b", ttl, log)
	taken := make(chan Term)
	go func() {
		next, err := other.Hold(context.Background())
		if err != nil {
			t.Error(err)
		}
		taken <- next
	}()
	select {
	case <-term.Context.Done():
	case next := <-taken:
		t.Error("taken over before the holder gave up")
		next.Release()
		return
	}
	if term.Valid() {
		t.Error("still valid")
	}
	next := <-taken
	if got := time.Since(began); got < ttl*7/8 {
		t.Errorf("taken over after %v, want %v", got, ttl)
	}
	term.Release()
	if !next.Valid() {
		t.Error("the new holder's lease is not valid")
	}
	next.Release()
	if next.Valid() {
		t.Error("valid after its release")
	}
}

// TestLeaseStolen: a holder learns that somebody else has written the key.
func TestLeaseStolen(t *testing.T) {
	r := newRig(t)
	kv := r.bucket(r.js)
	term, err := NewKVLease(kv, "inbound", "a", 500*time.Millisecond, slog.New(slog.DiscardHandler)).Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "inbound", []byte("somebody")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-term.Context.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("not noticed")
	}
	term.Release()
	entry, err := kv.Get(t.Context(), "inbound")
	if err != nil || string(entry.Value()) != "somebody" {
		t.Errorf("the other's key: %v %v", entry, err)
	}
}

// TestLeaseClock: a process that was stopped does not believe its lease, even
// before it tried to renew it, whichever of the clocks stood still.
func TestLeaseClock(t *testing.T) {
	l := NewKVLease(nil, "k", "a", 8*time.Second, slog.New(slog.DiscardHandler))
	now := time.Now()
	for _, tt := range []struct {
		name string
		last time.Time
		want bool
	}{
		{"just renewed", now, true},
		{"some time ago", now.Add(-5 * time.Second), true},
		{"too long ago", now.Add(-7 * time.Second), false},
		{"too long ago by the wall clock alone", now.Add(-7 * time.Second).Round(0), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &renewal{lease: l}
			r.last.Store(&tt.last)
			if got := r.valid(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
