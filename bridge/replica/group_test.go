package replica

import (
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/replica/rendezvous"
	"plaspy-bridge/publisher/natstest"
)

// TestAlone: the first replica of all has everything within a second, with the
// lease of production.
func TestAlone(t *testing.T) {
	timed(t)
	r := newRig(t, 100)
	elapsed := natstest.Stopwatch()
	a := r.start("a", func(_ *node, o *Options) { o.Lease, o.Limit = DefaultLease, 600 })
	if a.owns(r.tokens[0]) {
		t.Error("owns a device before it has joined")
	}
	r.awaitDivided(a)
	if took, most := elapsed(), within(time.Second); took > most {
		t.Errorf("alone, it took %v to have everything, want at most %v", took, most)
	}
	if got := a.Trouble(); got != "" {
		t.Errorf("trouble %q of one that has everything", got)
	}
	a.leave()
	if a.err != nil {
		t.Errorf("leave: %v", a.err)
	}
	if a.owns(r.tokens[0]) || a.Live() || a.state().Share != 0 || a.state().Owned(r.tokens[0]) {
		t.Errorf("still owns something after it has left: %+v", a.state())
	}
	// No replica waits for one that announced its shutdown.
	elapsed = natstest.Stopwatch()
	b := r.start("a", func(_ *node, o *Options) { o.Lease, o.Limit = DefaultLease, 600 })
	r.awaitDivided(b)
	if took, most := elapsed(), within(2*time.Second); took > most {
		t.Errorf("after a goodbye it took %v to have everything, want at most %v", took, most)
	}
}

// TestJoinLeave: a replica that joins or leaves moves only its own share.
func TestJoinLeave(t *testing.T) {
	timed(t)
	r := newRig(t, 600)
	a, b := r.start("a", steady), r.start("b", steady)
	before := r.awaitOwners(a, b)
	c := r.start("c", steady)
	after := r.awaitOwners(a, b, c)
	moved := 0
	for token, n := range after {
		if n != before[token] {
			moved++
			if n != c {
				t.Errorf("%s went from %s to %s, want to the newcomer or nowhere", token, before[token].id, n.id)
			}
		}
	}
	if moved < 140 || moved > 260 {
		t.Errorf("a third replica took %d of 600 devices, want about 200", moved)
	}
	elapsed := natstest.Stopwatch()
	c.leave()
	back := r.awaitOwners(a, b)
	if took, most := elapsed(), within(3*time.Second); took > most {
		t.Errorf("a replica that was stopped was replaced after %v, want within %v", took, most)
	}
	for token, n := range back {
		if n != before[token] {
			t.Errorf("%s is at %s, want back at %s", token, n.id, before[token].id)
		}
	}
}

// steady gives a replica the lease of production. A test in which no lease ends passes as
// quickly, and no replica is evicted because it did not run for a second.
func steady(_ *node, o *Options) { o.Lease = DefaultLease }

// owns reports whether a replica may poll a device now.
func (n *node) owns(token string) bool {
	n.rig.mu.Lock()
	defer n.rig.mu.Unlock()
	return n.ownsLocked(token)
}

func (n *node) ownsLocked(token string) bool { return n.last.owned(token) && n.Live() }

func (a Assignment) owned(token string) bool { return a.Owned != nil && a.Owned(token) }

// devices is the number of devices of a replica.
func (r *rig) devices(n *node) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ownersLocked()[n]
}

// ownersLocked counts the devices of each replica.
func (r *rig) ownersLocked() map[*node]int {
	m := make(map[*node]int)
	for _, token := range r.tokens {
		for _, n := range r.replicas {
			if n.ownsLocked(token) {
				m[n]++
			}
		}
	}
	return m
}

// byTokenLocked returns the owner of each device that has one.
func (r *rig) byTokenLocked() map[string]*node {
	m := make(map[string]*node)
	for _, token := range r.tokens {
		for _, n := range r.replicas {
			if n.ownsLocked(token) {
				m[token] = n
			}
		}
	}
	return m
}

// TestKill: a killed replica is replaced after its lease, even if it wrote the plans.
func TestKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b, c := r.start("a"), r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	a.kill()
	r.awaitDivided(b, c)
	b.kill()
	r.awaitDivided(c)
	c.kill()
	d := r.start("c") // the same name again
	r.awaitDivided(d)
}

// TestKillAll: two of three at once.
func TestKillAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b, c := r.start("a"), r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	a.kill()
	b.kill()
	r.awaitDivided(c)
}

// TestPause: a replica that is paused for longer than its lease owns nothing
// from the moment that it wakes, and gets its part again as a newcomer.
func TestPause(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b := r.start("a"), r.start("b")
	for noticed, tries := true, 0; noticed; tries++ {
		r.awaitDivided(a, b)
		a.pause()
		r.await("the other one has everything", func() bool { return r.divided(b) })
		for _, token := range r.tokens {
			if a.owns(token) {
				t.Fatalf("%s is still owned by the one that sleeps", token)
			}
		}
		// A busy machine may take its lease before it is suspended.
		noticed = !a.state().Owned(r.tokens[0]) && !a.state().Owned(r.tokens[1]) && a.state().Share == 0
		if noticed && tries == 10 {
			t.Fatal("the suspended replica noticed something, so this test shows nothing")
		}
		a.resume()
	}
	r.awaitDivided(a, b)
}

// TestSlowMember: no member polls a device before its previous owner confirms that it has given it up.
func TestSlowMember(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	rounds := 5
	if *proof {
		rounds = 8
	}
	for i := range rounds { // not long enough for b to lose its lease
		b.pause()
		r.elapse(testLease / 4)
		c := r.start(string(rune('c' + i)))
		r.elapse(testLease / 4)
		b.resume()
		r.awaitDivided(a, b, c)
		c.leave()
		r.awaitDivided(a, b)
	}
}

// TestKillInTime: with the lease of production one that is killed is replaced
// within 15 seconds, and the only one can be started again after its lease.
func TestKillInTime(t *testing.T) {
	timed(t)
	needsProof(t)
	r := newRig(t, 100)
	long := func(_ *node, o *Options) { o.Lease, o.Limit = DefaultLease, 600 }
	a, b := r.start("a", long), r.start("b", long)
	r.awaitDivided(a, b)
	start := time.Now()
	a.kill()
	r.awaitDivided(b)
	t.Logf("replaced after %v", time.Since(start))
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("replaced after %v", took)
	}
	start = time.Now()
	b.kill()
	again := r.start("b", long)
	r.awaitDivided(again)
	t.Logf("started again after %v", time.Since(start))
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("had everything %v after a kill", took)
	}
}

// TestPartition: the same if the network stalls without an error.
func TestPartition(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	a.gate.close()
	r.await("the cut-off one holds still", func() bool { return a.last.Suspended })
	r.awaitDivided(b)
	a.gate.open()
	r.awaitDivided(a, b)
}

// TestBrokerRestart: no replica is evicted because the broker is away, however long.
func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 200)
	a, b, c := r.start("a", steady), r.start("b", steady), r.start("c", steady)
	before := r.awaitOwners(a, b, c)
	epoch := a.state().Epoch
	r.server.Kill()
	r.await("all hold still", func() bool { return a.last.Suspended && b.last.Suspended && c.last.Suspended })
	r.restart()
	for token, n := range r.awaitOwners(a, b, c) {
		if n != before[token] {
			t.Errorf("%s went from %s to %s over a restart of the broker", token, before[token].id, n.id)
		}
	}
	if got := a.state().Epoch; got != epoch {
		t.Errorf("plan %d became %d over a restart of the broker", epoch, got)
	}
}

func BenchmarkOwns(b *testing.B) {
	for _, n := range []int{1, 3, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var all []string
			for i := range n {
				all = append(all, fmt.Sprintf("host-%d 1", i))
			}
			g := New(Options{ID: "a"})
			g.change = ignore
			owned := rendezvous.Views{rendezvous.New(all, all[0])}
			now := g.clock()
			g.lease.Store(&now)
			var tokens []string
			for i := range 1024 {
				tokens = append(tokens, fmt.Sprintf("device=20%d", i))
			}
			for i := 0; b.Loop(); i++ {
				_ = owned.Own(tokens[i%len(tokens)]) && g.Live()
			}
		})
	}
}
