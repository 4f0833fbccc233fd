package replica

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// skewed makes a replica's clocks run apart from the system's.
type skewed struct{ wall, steady atomic.Int64 }

func (s *skewed) now() moment {
	m := systemClock()
	m.wall += time.Duration(s.wall.Load())
	m.steady += time.Duration(s.steady.Load())
	return m
}

// startSkewed starts a replica with clocks that the test can set.
func (r *rig) startSkewed(id string) (*node, *skewed) {
	s := &skewed{}
	return r.start(id, func(n *node, _ *Options) { n.now = s.now }), s
}

// TestClockJumps: setting the clock kills nobody and moves no device.
func TestClockJumps(t *testing.T) {
	r := newRig(t, 100)
	a, clock := r.startSkewed("a")
	b := r.start("b")
	r.awaitDivided(a, b)
	before, epoch := r.byToken(), b.state().Epoch
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		clock.wall.Add(int64(jump))
		if live := a.Live(); live != (jump < 0) {
			t.Errorf("after a jump by %v: live %t", jump, live)
		}
		r.awaitDivided(a, b)
		at := clock.now()
		r.await("a renewal by the new clock", func() bool { return a.lease.Load().steady > at.steady })
	}
	for token, n := range r.byToken() {
		if n != before[token] {
			t.Errorf("%s moved because a clock was set", token)
		}
	}
	if b.state().Epoch != epoch {
		t.Errorf("plan %d became %d because a clock was set", epoch, b.state().Epoch)
	}
}

// TestSuspend: a machine that wakes owns nothing, by whichever clock it slept,
// before any goroutine of the group has run.
func TestSuspend(t *testing.T) {
	for name, sleep := range map[string]func(*skewed){
		"counted":     func(s *skewed) { s.steady.Add(int64(testLease)); s.wall.Add(int64(testLease)) },
		"not counted": func(s *skewed) { s.wall.Add(int64(testLease)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 10)
			a, clock := r.startSkewed("a")
			r.awaitDivided(a)
			a.pause()
			sleep(clock)
			for _, token := range r.tokens {
				if a.Owns(token) {
					t.Errorf("%s is owned on waking", token)
				}
			}
			a.resume()
			r.awaitDivided(a)
		})
	}
}

// TestOlderStore: the broker comes back with a copy of its store in which some
// replicas have never been.
func TestOlderStore(t *testing.T) {
	r := newRig(t, 100)
	a := r.start("a")
	r.awaitDivided(a)
	r.server.Kill()
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(r.server.Dir())); err != nil {
		t.Fatal(err)
	}
	r.restart()
	b, c := r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	a.kill()
	r.awaitDivided(b, c)
	r.server.Kill()
	if err := os.RemoveAll(r.server.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(r.server.Dir(), os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.await("the loss is noticed", func() bool { return b.last.Members == 0 && c.last.Members == 0 })
	r.awaitDivided(b, c)
}

// TestBucketDeleted: the bucket is made again, and nobody acts on what another
// one may still believe.
func TestBucketDeleted(t *testing.T) {
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	js, err := jetstream.New(r.server.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), subjects.ReplicasBucket()); err != nil {
		t.Fatal(err)
	}
	r.await("the loss is noticed", func() bool { return a.last.Members == 0 && b.last.Members == 0 })
	r.awaitDivided(a, b)
}

// TestKeyDeleted: an operator deletes everything in the bucket, key by key.
func TestKeyDeleted(t *testing.T) {
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	kv := r.bucket()
	keys, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := kv.Purge(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	r.await("the loss is noticed", func() bool { return a.last.Members == 0 || b.last.Members == 0 })
	r.awaitDivided(a, b)
}

// TestPlanSpoiled: what somebody else did to the plan its members undo.
func TestPlanSpoiled(t *testing.T) {
	for name, spoil := range map[string]func(jetstream.KeyValue) error{
		"deleted": func(kv jetstream.KeyValue) error { return kv.Delete(t.Context(), planKey) },
		"purged":  func(kv jetstream.KeyValue) error { return kv.Purge(t.Context(), planKey) },
		"no plan": func(kv jetstream.KeyValue) error { _, err := kv.Put(t.Context(), planKey, []byte("hello")); return err },
		"bad plan": func(kv jetstream.KeyValue) error {
			_, err := kv.Put(t.Context(), planKey, []byte(`{"epoch":9,"limit":1,"seats":[{"slots":2}]}`))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 50)
			a, b := r.start("a"), r.start("b")
			r.awaitDivided(a, b)
			before := r.byToken()
			if err := spoil(r.bucket()); err != nil {
				t.Fatal(err)
			}
			c := r.start("c")
			r.awaitDivided(a, b, c)
			for token, n := range r.byToken() {
				if n != c && n != before[token] {
					t.Errorf("%s went from %s to %s", token, before[token].id, n.id)
				}
			}
		})
	}
}

func (r *rig) bucket() jetstream.KeyValue {
	r.Helper()
	js, err := jetstream.New(r.server.Client(r.T))
	if err != nil {
		r.Fatal(err)
	}
	kv, err := js.KeyValue(r.Context(), subjects.ReplicasBucket())
	if err != nil {
		r.Fatal(err)
	}
	return kv
}

// TestBucketAsItIs: a bucket that an operator made is used and not changed.
func TestBucketAsItIs(t *testing.T) {
	r := newRig(t, 50)
	js, err := jetstream.New(r.server.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	want := jetstream.KeyValueConfig{Bucket: subjects.ReplicasBucket(), History: 5, Storage: jetstream.MemoryStorage, Description: "mine"}
	if _, err := js.CreateKeyValue(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	status, err := r.bucket().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := status.Config(); got.History != 5 || got.Storage != jetstream.MemoryStorage || got.TTL != 0 || got.Description != "mine" {
		t.Errorf("the bucket became %+v", got)
	}
}

// TestGoodbyeFails: leaving without the broker ends in time, with an error.
func TestGoodbyeFails(t *testing.T) {
	r := newRig(t, 10)
	a := r.start("a")
	r.awaitDivided(a)
	r.server.Kill()
	start := time.Now()
	a.leave()
	if a.err == nil {
		t.Error("no error although nobody heard the goodbye")
	}
	if took := time.Since(start); took > 2*testLease {
		t.Errorf("leaving took %v", took)
	}
}

// TestLateBroker: a replica that starts before the broker joins when it comes.
func TestLateBroker(t *testing.T) {
	r := newRig(t, 10)
	a := r.start("a")
	a.gate.close() // nothing has been said yet, or hardly
	b := r.start("b")
	r.awaitDivided(b)
	a.gate.open()
	r.awaitDivided(a, b)
}

// TestTwins: two replicas with one name are two.
func TestTwins(t *testing.T) {
	r := newRig(t, 100)
	a, b := r.start("same"), r.start("same")
	r.awaitDivided(a, b)
}

// TestStandby: where there are more replicas than requests a minute, some wait.
func TestStandby(t *testing.T) {
	r := newRig(t, 100)
	limit := func(_ *node, o *Options) { o.Limit = 1 }
	a := r.start("a", limit)
	r.awaitDivided(a)
	b := r.start("b", limit)
	r.await("the second one waits", func() bool { return b.Live() && b.Trouble() != "" && b.last.Members == 0 })
	a.leave()
	// One request a minute: a whole minute passes before the next one may be
	// sent, so it is the device that must come over and not the budget.
	r.await("its devices are free", func() bool { return r.owners()[a] == 0 })
}

// TestUnlimited: without a limit there is nothing to wait for.
func TestUnlimited(t *testing.T) {
	r := newRig(t, 100)
	free := func(_ *node, o *Options) { o.Limit = 0 }
	a, b := r.start("a", free), r.start("b", free)
	r.awaitDivided(a, b)
}

// TestThrottle: what one replica sees all obey within a second.
func TestThrottle(t *testing.T) {
	r := newRig(t, 10)
	a, b, c := r.start("a"), r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	start := time.Now()
	a.Throttled(time.Now().Add(time.Minute), 0.5)
	for _, n := range []*node{b, c} {
		select {
		case got := <-n.throttled:
			if got != 0.5 {
				t.Errorf("%s was told the factor %v, want 0.5", n.id, got)
			}
		case <-time.After(patience):
			t.Fatalf("%s was not told", n.id)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("telling took %v, want less than 1s", took)
	}
	select {
	case <-a.throttled:
		t.Error("was told what it has told")
	default:
	}
}

// TestThrottleAll: everybody is throttled at once; the longest stop reaches all.
func TestThrottleAll(t *testing.T) {
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
	start := time.Now()
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
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v until all stopped", took)
	}
	// Who joins later obeys what is left of it.
	late := make(chan time.Time, 10)
	r.start("late", func(_ *node, o *Options) { o.OnThrottle = func(at time.Time, _ float64) { late <- at } })
	select {
	case at := <-late:
		if d := at.Sub(longest).Abs(); d > time.Second {
			t.Errorf("a newcomer stops until %v off", d)
		}
	case <-time.After(patience):
		t.Error("a newcomer was not told")
	}
}

// TestChurn: joins, leaves, kills, pauses, partitions and restarts in any order.
// The rig fails it if two ever own one device, or the shares exceed the budget.
func TestChurn(t *testing.T) {
	r := newRig(t, 60)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	living := []*node{r.start("first")}
	steps := 25
	if testing.Short() {
		steps = 8
	}
	for i := range steps {
		n := living[random.IntN(len(living))]
		act := random.IntN(6)
		if len(living) == 1 || len(living) < 5 && act == 0 {
			living = append(living, r.start(string(rune('a'+i))))
			act = 0
		}
		switch act {
		case 1, 2:
			living = remove(living, n)
			if act == 1 {
				n.leave()
			} else {
				n.kill()
			}
		case 3:
			n.pause()
			r.elapse(time.Duration(random.IntN(int(2 * testLease))))
			n.resume()
		case 4:
			n.gate.close()
			r.elapse(time.Duration(random.IntN(int(2 * testLease))))
			n.gate.open()
		case 5:
			r.server.Kill()
			r.elapse(time.Duration(random.IntN(int(testLease))))
			r.restart()
		}
		r.elapse(time.Duration(random.IntN(int(testLease / 2))))
	}
	r.awaitDivided(living...)
}

func remove(from []*node, n *node) (rest []*node) {
	for _, other := range from {
		if other != n {
			rest = append(rest, other)
		}
	}
	return rest
}

// elapse lets time pass, looking for faults all the while.
func (r *rig) elapse(d time.Duration) {
	end := time.Now().Add(d)
	r.await("time to pass", func() bool { return time.Now().After(end) })
}

// TestFifty: many replicas agree, and what they write does not depend on what
// they do.
func TestFifty(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 50 replicas")
	}
	const n = 50
	r := newRig(t, 5000)
	var nodes []*node
	start := time.Now()
	for i := range n {
		nodes = append(nodes, r.start(string(rune('A'+i)), func(_ *node, o *Options) { o.Lease, o.Limit = DefaultLease, 60_000 }))
	}
	r.awaitDivided(nodes...)
	t.Logf("%d replicas shared the work after %v", n, time.Since(start))
	kv := r.bucket()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := kv.Watch(ctx, "group.>", jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	writes, bytes := 0, 0
	stop := time.After(2 * DefaultLease)
	for counting := true; counting; {
		select {
		case e := <-w.Updates():
			writes++
			bytes += len(e.Value())
		case <-stop:
			counting = false
		}
	}
	_ = w.Stop()
	t.Logf("in %v: %d writes, %d bytes", 2*DefaultLease, writes, bytes)
	if most := n*8*13/10 + 10; writes > most { // 8 renewals each
		t.Errorf("%d writes to the bucket in two leases, want at most %d", writes, most)
	}
	nodes[7].kill()
	r.awaitDivided(remove(nodes, nodes[7])...)
}

// TestLateEcho: the watch shows a replica's own plans later than it knows them.
func TestLateEcho(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600, OnChange: func(Assignment) {}})
	life := &term{g: g, key: "k", members: make(map[string]*member)}
	one, two := plan{Epoch: 1, Limit: 600}, plan{Epoch: 2, Limit: 600, Seats: []seat{{"k", "a", 600}}}
	life.obey(one, 10)
	life.obey(two, 12)
	life.obey(one, 10)
	life.obey(two, 12)
	if life.lost != nil || life.plan.Epoch != 2 {
		t.Errorf("at plan %d, lost: %v", life.plan.Epoch, life.lost)
	}
	life.obey(one, 13)
	if !errors.Is(life.lost, errStateLost) {
		t.Errorf("a plan that went back: lost: %v", life.lost)
	}
}

// FuzzEntries: whatever stands in the bucket, a replica neither panics nor takes
// more than there is.
func FuzzEntries(f *testing.F) {
	good, _ := json.Marshal(plan{Epoch: 3, Limit: 600, Seats: []seat{{"k", "a", 300}, {"l", "b", 300}}})
	f.Add(good, []byte(`{"id":"b","beat":1,"ack":3}`))
	f.Add([]byte(`{"epoch":1,"seats":[{"key":"k","slots":-5},{"key":"k","slots":9}]}`), []byte(`{"load":-1,"limit":-7}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var p plan
		var m record
		if json.Unmarshal(a, &p) != nil || json.Unmarshal(b, &m) != nil || !p.valid() {
			return
		}
		g := New(Options{ID: "a", Limit: 600, OnChange: func(a Assignment) {
			if a.Share < 0 || a.Share > 1 {
				t.Errorf("share %v", a.Share)
			}
			a.Owned("dev")
		}})
		term := &term{g: g, key: "k", members: map[string]*member{"l": {key: "l", record: m, revision: 2}}}
		term.obey(p, 1)
		term.own.acked = p.Epoch
		term.agree()
		term.publish()
		s := situation{plan: term.plan, gone: term.gone, committed: true, idle: time.Hour, limit: 600, living: term.living()}
		if next, _, ok := s.draft(); ok && next.Epoch <= p.Epoch && p.Epoch < 1<<62 {
			t.Errorf("plan %d after %d", next.Epoch, p.Epoch)
		}
	})
}
