package replica

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/replica/plan"
	"plaspy-bridge/bridge/replica/rendezvous"
)

// calmly runs a test with replicas on a modelled bucket, in simulated time. The
// rig fails it if two replicas may have posts under way at once.
func calmly(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.limit, w.unlimited = 600, false
		defer func() {
			for len(w.living) > 0 {
				w.end(w.living[0], true)
			}
			time.Sleep(time.Minute) // in simulated time, until the scheduled events have ended
		}()
		f(w)
	})
}

// reaching makes a load of one that reaches the API, or does not.
func reaching(api bool) int {
	if api {
		return 100
	}
	return 99 // see join
}

func (w *world) joinReaching(id string, set ...func(*Options)) *node {
	n := w.join(id, set...)
	w.mu.Lock()
	n.load = reaching(true)
	n.finish = nil
	w.mu.Unlock()
	return n
}

// within fails the test unless the condition holds before the time is over, and
// returns how long it took.
func (w *world) within(d time.Duration, what string, cond func() bool) time.Duration {
	w.Helper()
	start := time.Now()
	for {
		w.mu.Lock()
		w.check()
		ok := cond()
		w.mu.Unlock()
		switch {
		case ok:
			return time.Since(start)
		case time.Since(start) > d:
			for _, n := range w.living {
				w.Logf("%s: %+v, live %t, posting %t, trouble %q", n.id, n.last, n.Live(), n.Posting(), n.Trouble())
			}
			w.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond) // in simulated time
	}
}

// TestRestartInTime: a replica that follows one that has ended waits as long as the
// budget demands, and not for the next tick of its loop.
func TestRestartInTime(t *testing.T) {
	calmly(t, func(w *world) {
		w.limit = 6_000 // of which the pause is 20 ms
		a := w.joinReaching("a")
		w.within(time.Minute, "a has all", func() bool { return w.divided(a) })
		w.end(a, false)
		w.pass(time.Minute)
		b := w.joinReaching("b")
		// The modelled bucket takes 200 ms for the writes. The tick is after 360 ms.
		if took := w.within(time.Minute, "b has all", func() bool { return w.divided(b) }); took > 300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// TestSeatFollowsTheAPI: a replica that cannot reach the API hands the posting
// seat on, if another one can.
func TestSeatFollowsTheAPI(t *testing.T) {
	t.Parallel()
	calmly(t, func(w *world) {
		a := w.joinReaching("a")
		w.within(3*time.Second, "a posts", a.Posting)
		b := w.joinReaching("b")
		w.within(time.Minute, "both share the work", func() bool { return w.divided(a, b) })
		w.pass(time.Minute)
		if !a.Posting() {
			t.Fatal("the seat moved although a was well")
		}
		w.mu.Lock()
		b.load = reaching(false)
		w.mu.Unlock()
		w.pass(DefaultLease) // the seat moves to one that has not reported its trouble yet
		w.mu.Lock()
		a.load = reaching(false)
		w.mu.Unlock()
		w.pass(time.Minute)
		if !a.Posting() {
			t.Fatal("the seat moved to a replica that cannot reach the API either")
		}
		w.mu.Lock()
		b.load = reaching(true)
		a.finish = func() time.Duration { return 8 * time.Second } // longer than a lease
		w.mu.Unlock()
		w.within(15*time.Second, "a stops to post", func() bool { return !a.Posting() })
		w.within(15*time.Second, "b posts", b.Posting)
	})
}

// TestStopKeepsTheSeat checks that a replica that stops gives its devices up at
// once, and the posting seat when its posts are recorded.
func TestStopKeepsTheSeat(t *testing.T) {
	calmly(t, func(w *world) {
		a, b := w.joinReaching("a"), w.joinReaching("b")
		w.within(time.Minute, "both share the work", func() bool { return w.divided(a, b) })
		if b.Posting() {
			a, b = b, a
		}
		const sent = 8 * time.Second // longer than a lease
		w.mu.Lock()
		a.finish = func() time.Duration { return sent }
		w.mu.Unlock()
		a.stop()
		w.within(3*time.Second, "b has all devices", func() bool { return w.ownersLocked()[b] == len(w.tokens) })
		w.mu.Lock()
		early, under := b.Posting(), a.posting
		w.mu.Unlock()
		if early || !under || a.Posting() || a.Live() {
			t.Errorf("b posts %t, a has posts under way %t, may post %t, is live %t; want false, true, false, false", early, under, a.Posting(), a.Live())
		}
		if took := w.within(sent+3*time.Second, "b posts", b.Posting); took < sent-3*time.Second {
			t.Errorf("b posts %v after a began to stop, want not before %v", took, sent)
		}
		<-a.done
		if a.err != nil {
			t.Errorf("leave: %v", a.err)
		}
	})
}

// TestStopDoesNotWaitForEver checks that a post without an answer delays the stop
// no longer than the grace, and the other replicas no longer than the lease.
func TestStopDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	calmly(t, func(w *world) {
		a := w.joinReaching("a", func(o *Options) { o.Grace = 4 * time.Second })
		w.within(time.Minute, "a posts", a.Posting)
		b := w.joinReaching("b")
		w.within(time.Minute, "both share the work", func() bool { return w.divided(a, b) })
		w.mu.Lock()
		a.finish = func() time.Duration { return time.Hour }
		w.mu.Unlock()
		start := time.Now()
		a.stop()
		<-a.done
		if took := time.Since(start); took > 5*time.Second || a.err == nil {
			t.Errorf("stopped after %v, error %v; want about 4s, and an error", took, a.err)
		}
		w.mu.Lock()
		w.replicas = remove(w.replicas, a) // the process ends here
		w.mu.Unlock()
		w.within(DefaultLease+2*time.Second, "b posts", b.Posting)
	})
}

// TestSeatOfOneThatCannot: a replica that does not consume never has the seat.
func TestSeatOfOneThatCannot(t *testing.T) {
	calmly(t, func(w *world) {
		a := w.joinReaching("a", func(o *Options) { o.Consumes = false })
		w.pass(10 * time.Second)
		if a.Posting() {
			t.Error("a posts although it does not consume")
		}
		b := w.joinReaching("b")
		w.within(10*time.Second, "b posts", b.Posting)
	})
}

// TestSeatOfEarlierVersions: as long as a replica of a version before the seat
// runs, or its lease does, this version does not post.
func TestSeatOfEarlierVersions(t *testing.T) {
	calmly(t, func(w *world) {
		a := w.joinReaching("a")
		w.within(time.Minute, "a posts", a.Posting)
		old, key := record{ID: "old", Limit: 600, Load: 1}, memberKey("old", "nonce")
		renew := func() {
			old.Beat++
			data, err := json.Marshal(old)
			if err != nil {
				t.Fatal(err)
			}
			// It obeys every plan at once.
			if e, there := w.m.copied().entries[planKey]; there {
				var p plan.Plan
				if json.Unmarshal(e.value, &p) == nil {
					old.Ack = p.Epoch
				}
			}
			w.m.set(key, string(data))
			w.m.set(earlierKey, fmt.Sprintf(`{"replica":"old","process":"%d"}`, old.Beat))
		}
		renew()
		w.within(3*time.Second, "a stops to post", func() bool { return !a.Posting() })
		for range 20 {
			renew()
			w.pass(time.Second)
			if a.Posting() {
				t.Fatal("a posts beside a replica of an earlier version")
			}
		}
		old.Left = true
		renew() // it leaves, and its lease stays behind
		w.pass(earlierTTL - time.Second)
		if a.Posting() {
			t.Fatal("a posts before the lease of the earlier version has run out")
		}
		w.within(earlierTTL, "a posts", a.Posting)
	})
}

// TestMoved checks Moved for an assignment that changes the share alone, one that
// returns the devices after a lease ran out, and one that only removes devices.
func TestMoved(t *testing.T) {
	type changes struct{ moved, gained bool }
	g := New(Options{ID: "a"})
	var got []changes
	g.change = func(a Assignment) (none InFlight) {
		got = append(got, changes{a.Moved, a.Gained})
		return none
	}
	two, one := rendezvous.New([]string{"a", "b"}, "a"), rendezvous.New([]string{"a"}, "a")
	for _, tt := range []struct {
		name  string
		a     Assignment
		owned rendezvous.Views
		want  changes
	}{
		{"first devices", Assignment{Share: 1}, rendezvous.Views{two}, changes{true, true}},
		{"another share", Assignment{Share: .5}, rendezvous.Views{two}, changes{}},
		{"suspended", Assignment{Suspended: true}, nil, changes{}},
		{"back again", Assignment{Share: .5}, rendezvous.Views{two}, changes{}},
		{"the other one has ended", Assignment{Share: .5}, rendezvous.Views{two}.And(one), changes{true, false}},
		{"all devices", Assignment{Share: 1}, rendezvous.Views{one}, changes{true, true}},
		{"another one joins", Assignment{Share: 1}, rendezvous.Views{one}.And(two), changes{true, false}},
		{"its part", Assignment{Share: .5}, rendezvous.Views{two}, changes{true, false}},
		{"suspended", Assignment{Suspended: true}, nil, changes{}},
		{"taken over", Assignment{}, nil, changes{true, false}},
		{"back in the group", Assignment{Share: .5}, rendezvous.Views{two}, changes{true, true}},
	} {
		got = nil
		g.assign(tt.a, tt.owned)
		if len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: got %v, want once %v", tt.name, got, tt.want)
		}
	}
}
