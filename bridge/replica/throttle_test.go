package replica

import (
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/publisher/natstest"
)

// TestThrottle checks that all replicas obey within a second a throttling that one sees.
func TestThrottle(t *testing.T) {
	timed(t)
	r := newRig(t, 10)
	a, b, c := r.start("a"), r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	elapsed := natstest.Stopwatch()
	a.Throttled(time.Now().Add(time.Minute), 0.5)
	for _, n := range []*node{b, c} {
		select {
		case got := <-n.throttled:
			if got != 0.5 {
				t.Errorf("%s received the factor %v, want 0.5", n.id, got)
			}
		case <-time.After(patience):
			t.Fatalf("%s received no throttling", n.id)
		}
	}
	if took, most := elapsed(), within(time.Second); took > most {
		t.Errorf("telling took %v, want at most %v", took, most)
	}
	select {
	case <-a.throttled:
		t.Error("received its own announcement")
	default:
	}
}

// TestThrottleAll: all replicas are throttled at once; the longest pause reaches all.
func TestThrottleAll(t *testing.T) {
	timed(t)
	r := newRig(t, 10)
	until := make([]atomic.Int64, 6)
	var nodes []*node
	for i := range until {
		nodes = append(nodes, r.start(string(rune('a'+i)), func(_ *node, o *Options) {
			o.OnThrottle = func(at time.Time, _ float64) {
				until[i].Store(max(until[i].Load(), at.UnixMilli()))
			}
		}))
	}
	r.awaitDivided(nodes...)
	start, elapsed := time.Now(), natstest.Stopwatch()
	longest := start.Add(10 * time.Minute)
	for i, n := range nodes {
		at := start.Add(time.Duration(i) * time.Minute)
		if i == 2 {
			at = longest
		}
		n.Throttled(at, 1)
	}
	r.await("all stop until the last", func() bool {
		for i := range until {
			if i != 2 && until[i].Load() < longest.Add(-time.Second).UnixMilli() {
				return false
			}
		}
		return true
	})
	if took := elapsed(); took > within(2*time.Second) {
		t.Errorf("it took %v until all stopped", took)
	}
	// A replica that joins later obeys the rest of it.
	late := make(chan time.Time, 10)
	r.start("late", func(_ *node, o *Options) { o.OnThrottle = func(at time.Time, _ float64) { late <- at } })
	select {
	case at := <-late:
		if d := at.Sub(longest).Abs(); d > time.Second {
			t.Errorf("a newcomer stops until %v off", d)
		}
	case <-time.After(patience):
		t.Error("a new replica received no throttling")
	}
}
