package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// turn is one poll of a device and the publication of its answer.
type turn struct {
	token   string
	began   time.Time
	given   bool // its device belongs to another replica now
	revoked bool
}

// turns are those in flight of one replica, as the pool has them.
type turns struct {
	list  []*turn
	ended chan struct{} // if not nil, closed when the last one ends that was given up
	over  bool          // the process has ended
}

// giveUp marks the turns of devices that an assignment does not have. The rig's mutex
// is held.
func (s *turns) giveUp(r *rig, a Assignment) InFlight {
	if a.Suspended || !a.Moved {
		return InFlight{}
	}
	for _, t := range s.list {
		t.given = !a.owned(t.token)
	}
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	work := InFlight{Ended: s.ended, Revoke: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, t := range s.list {
			t.revoked = t.revoked || t.given
		}
	}}
	s.end(nil)
	return work
}

// end removes a turn. The rig's mutex is held.
func (s *turns) end(t *turn) {
	s.list = slices.DeleteFunc(s.list, func(other *turn) bool { return other == t })
	if s.ended != nil && !slices.ContainsFunc(s.list, func(t *turn) bool { return t.given }) {
		close(s.ended)
		s.ended = nil
	}
}

// begin begins a turn of a device that a replica owns and does not poll now, or returns
// nil.
func (w *world) begin(n *node, token string) *turn {
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := slices.ContainsFunc(n.turns.list, func(t *turn) bool { return t.token == token })
	if busy || !n.ownsLocked(token) || n.turns.over {
		return nil
	}
	t := &turn{token: token, began: time.Now()}
	n.turns.list = append(n.turns.list, t)
	w.newest[token] = t
	return t
}

// beginAny begins a turn of any device, or returns nil.
func (w *world) beginAny(n *node) *turn {
	for _, token := range w.tokens {
		if t := w.begin(n, token); t != nil {
			return t
		}
	}
	return nil
}

// finish ends a turn. It fails the test if the turn would publish although another one
// of its device has begun since. It reports whether the turn published.
func (w *world) finish(n *node, t *turn) (published bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lapsed := n.Lapsed()
	published = !n.turns.over && !lapsed && !t.revoked
	if published && w.newest[t.token] != t && t.began.After(w.blind) {
		w.Errorf("%s publishes what it saw of %s, which another replica has polled since", n.id, t.token)
	}
	n.turns.end(t)
	return published
}

// poll polls devices of a replica until ctx ends. Some turns are long.
func (w *world) poll(ctx context.Context, n *node, random *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // in simulated time
		t := w.begin(n, w.tokens[random.IntN(len(w.tokens))])
		if t == nil {
			continue
		}
		length := time.Duration(random.IntN(1000)) * time.Millisecond
		if random.IntN(20) == 0 {
			length *= 20
		}
		go func() {
			time.Sleep(length)
			w.finish(n, t)
		}()
	}
}

// TestHandoverWaitsForTurns: a device that moves to a replica that joins is polled there
// after its turn on the old owner has ended. A turn that lasts too long publishes nothing.
func TestHandoverWaitsForTurns(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{2 * time.Second, time.Minute} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			calmly(t, func(w *world) {
				a := w.join("a")
				w.within(time.Minute, "a has all devices", func() bool { return w.ownersLocked()[a] == len(w.tokens) })
				var all []*turn
				for _, token := range w.tokens {
					if one := w.begin(a, token); one != nil {
						all = append(all, one)
					}
				}
				b := w.join("b")
				w.within(time.Minute, "a gives devices up", func() bool { return w.ownersLocked()[a] < len(w.tokens) })
				for since := time.Now(); time.Since(since) < min(length, DefaultLease-time.Second); w.pass(100 * time.Millisecond) {
					if n := w.devices(b); n > 0 {
						t.Fatalf("b has %d devices although their turns on a go on", n)
					}
				}
				for _, one := range all {
					if length < DefaultLease && !w.finish(a, one) {
						t.Errorf("the answer of %s is not published", one.token)
					}
				}
				w.within(3*time.Second, "both share the devices", func() bool {
					return w.ownersLocked()[a]+w.ownersLocked()[b] == len(w.tokens) && w.ownersLocked()[b] > 0
				})
				for _, one := range all {
					if length > DefaultLease && w.finish(a, one) != a.owns(one.token) {
						t.Errorf("%s: want the answer published if the device stayed", one.token)
					}
				}
			})
		})
	}
}

// TestTurnsOfAPausedReplica: a replica that was paused until another one took over
// publishes nothing that it had asked for before.
func TestTurnsOfAPausedReplica(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{4500 * time.Millisecond, 20 * time.Second} {
		t.Run(fmt.Sprint(pause), func(t *testing.T) {
			calmly(t, func(w *world) {
				a, b := w.join("a"), w.join("b")
				w.within(time.Minute, "both share the devices", func() bool { return w.divided(a, b) })
				a.pause()
				w.lines[a].close(true)
				all := map[*turn]bool{}
				for _, token := range w.tokens {
					if one := w.begin(a, token); one != nil {
						all[one] = true
					}
				}
				w.pass(pause)
				taken := w.devices(b) == len(w.tokens)
				for one := range all {
					if !a.Lapsed() && !one.revoked {
						t.Errorf("%s: the lease ran out, and the turn may publish", one.token)
					}
				}
				a.resume()
				w.lines[a].close(false)
				w.within(10*time.Second, "a knows if it still has its lease", func() bool { return !a.Lapsed() })
				for one := range all {
					if w.finish(a, one) == taken {
						t.Errorf("%s: taken over %t, published %t", one.token, taken, taken)
					}
				}
			})
		})
	}
}

// TestTurnsOfAStop: a replica that stops beside another one publishes nothing after it
// has left. If it is alone, it leaves afterwards.
func TestTurnsOfAStop(t *testing.T) {
	t.Parallel()
	for _, names := range []string{"a", "a b"} {
		t.Run(names, func(t *testing.T) {
			calmly(t, func(w *world) {
				var all []*node
				for id := range strings.FieldsSeq(names) {
					all = append(all, w.join(id))
				}
				w.within(time.Minute, "the devices are shared", func() bool { return w.divided(all...) })
				a := all[0]
				one := w.beginAny(a)
				a.stop()
				if len(all) > 1 {
					<-a.done
				} else {
					w.pass(2 * DefaultLease)
				}
				if published := w.finish(a, one); published != (len(all) == 1) {
					t.Errorf("published %t", published)
				}
				<-a.done
			})
		})
	}
}

// TestTurnsOfAStopAfterTheLease: a replica that was cut off until another one took over
// publishes nothing during its stop, although it has never heard of the other one.
func TestTurnsOfAStopAfterTheLease(t *testing.T) {
	t.Parallel()
	calmly(t, func(w *world) {
		a := w.join("a")
		w.within(time.Minute, "a has the devices", func() bool { return w.divided(a) })
		one := w.beginAny(a)
		w.lines[a].close(true)
		b := w.join("b")
		w.within(time.Minute, "b took over", func() bool { return w.ownersLocked()[b] == len(w.tokens) })
		a.stop()
		<-a.done
		if w.finish(a, one) {
			t.Error("the answer from before is published")
		}
	})
}

// TestTurnsWhenTheBucketLosesItsState: after the bucket lost a replica's state, it publishes
// the answers to earlier requests, for as long as other replicas wait then.
func TestTurnsWhenTheBucketLosesItsState(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{DefaultLease - time.Second, 2 * DefaultLease} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			calmly(t, func(w *world) {
				a := w.join("a")
				empty := w.m.copied()
				w.within(time.Minute, "a has the devices", func() bool { return w.divided(a) })
				one := w.beginAny(a)
				w.lose(empty)
				w.within(3*time.Second, "a notices the loss", func() bool { return !a.ownsLocked(one.token) })
				w.pass(length)
				if published := w.finish(a, one); published != (length < DefaultLease) {
					t.Errorf("published %t", published)
				}
				w.within(time.Minute, "a has the devices again", func() bool { return w.divided(a) })
			})
		})
	}
}
