package replica

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/publisher/natstest"
)

// skewed makes a replica's clocks run apart from the system's.
type skewed struct{ wall, steady atomic.Int64 }

func (s *skewed) now() clock.Moment {
	m := clock.System()
	m.Wall += time.Duration(s.wall.Load())
	m.Steady += time.Duration(s.steady.Load())
	return m
}

// startSkewed starts a replica with clocks that the test can set.
func (r *rig) startSkewed(id string, set ...func(*node, *Options)) (*node, *skewed) {
	s := &skewed{}
	return r.start(id, append(set, func(n *node, _ *Options) { n.now = s.now })...), s
}

// TestClockJumps: setting the clock evicts no replica and moves no device.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	a, clock := r.startSkewed("a", steady)
	b := r.start("b", steady)
	before := r.awaitOwners(a, b)
	epoch := b.state().Epoch
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		clock.wall.Add(int64(jump))
		if live := a.Live(); live != (jump < 0) {
			t.Errorf("after a jump by %v: live %t", jump, live)
		}
		r.awaitDivided(a, b)
		at := clock.now()
		r.await("a renewal by the new clock", func() bool { return a.lease.Load().Steady > at.Steady })
	}
	for token, n := range r.awaitOwners(a, b) {
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
	t.Parallel()
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
				if a.owns(token) {
					t.Errorf("%s is owned on waking", token)
				}
			}
			a.resume()
			r.awaitDivided(a)
		})
	}
}

// TestGoodbyeFails: leaving without the broker ends in time, with an error.
func TestGoodbyeFails(t *testing.T) {
	r := newRig(t, 10)
	a := r.start("a")
	r.awaitDivided(a)
	r.server.Kill()
	elapsed := natstest.Stopwatch()
	a.leave()
	if a.err == nil {
		t.Error("no error although the shutdown could not be announced")
	}
	if took := elapsed(); took > within(2*testLease) {
		t.Errorf("leaving took %v", took)
	}
}

// TestLateBroker: a replica that starts before the broker joins when it comes.
func TestLateBroker(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	r := newRig(t, 100)
	a, b := r.start("same"), r.start("same")
	r.awaitDivided(a, b)
}

// TestStandby: with more replicas than requests a minute, some wait.
func TestStandby(t *testing.T) {
	r := newRig(t, 100)
	limit := func(_ *node, o *Options) { o.Limit = 1 }
	a := r.start("a", limit)
	r.awaitDivided(a)
	b := r.start("b", limit)
	r.await("the second one waits", func() bool { return b.Live() && b.Trouble() == "" && b.Standby() != "" && b.last.Members == 0 })
	a.leave()
	// One request a minute: a whole minute passes before the next one may be
	// sent, so it is the device that must come over and not the budget.
	r.await("its devices are free", func() bool { return r.ownersLocked()[a] == 0 })
}

// TestUnlimited: without a limit there is nothing to wait for.
func TestUnlimited(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	free := func(_ *node, o *Options) { o.Limit = 0 }
	a, b := r.start("a", free), r.start("b", free)
	r.awaitDivided(a, b)
}

// TestChurn: joins, leaves, kills, pauses, partitions and restarts in any order.
// The rig fails it if two ever own one device, or the shares exceed the budget.
func TestChurn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 60)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	living := []*node{r.start("first")}
	steps := 8
	if *proof {
		steps = 25
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
