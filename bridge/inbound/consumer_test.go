package inbound

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// TestMixedFailures: 30% of answers fail; every message is posted, in order,
// with one result and no dead letter.
func TestMixedFailures(t *testing.T) {
	t.Parallel()
	const n, devices = 2000, 50
	r := newRig(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var tries atomic.Int64
	api := newFakeAPI(nil)
	api.answer = func(string, int, []byte) error {
		api.mu.Lock()
		defer api.mu.Unlock()
		if rnd.IntN(10) < 3 {
			tries.Add(1)
			return status([]int{500, 502, 408, 425}[rnd.IntN(4)])
		}
		return nil
	}
	r.putMany(n, func(i int) string { return device(i % devices) })
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), n); again != 0 {
		t.Errorf("%d posted twice", again)
	}
	api.checkOverlap(t)
	r.waitCount(subjects.Results(), n)
	if got := r.count(subjects.DeadLetters()); got != 0 {
		t.Errorf("%d dead letters", got)
	}
	if tries.Load() < n/10 {
		t.Errorf("only %d tries failed, so the test shows nothing", tries.Load())
	}
}

// TestDeepBacklog: one device fails with a long backlog at the head of the
// stream, longer than anything that is held; the others' messages behind it are
// posted meanwhile, and its own in order once it is well.
func TestDeepBacklog(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		backlog int
		set     func(*Consumer)
	}{
		{"as it is", 3000, func(*Consumer) {}},
		{"memory full", 1500, func(c *Consumer) {
			limits := c.opt.limits()
			limits.Messages = 32
			c.lanes = lane.New(limits)
		}},
		{"asks the leader", 3000, func(c *Consumer) { c.leader.Store(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var well atomic.Bool
			api := newFakeAPI(func(id string, _ int, _ []byte) error {
				if id == "bad" && !well.Load() {
					return status(500)
				}
				return nil
			})
			r.putMany(tt.backlog, func(int) string { return "bad" })
			const others = 400
			for i := range others {
				r.put(subjects.InLocation(device(i%20)), location(tt.backlog+i))
			}
			c := r.consumer(api, tt.set)
			run(t, c)
			api.waitFor(t, "posts of the others", func(took []accepted) bool { return len(took) == others })
			checkOrder(t, api.accepted(), others)
			if s := c.Status(); s.InMemory > maxMessages {
				t.Errorf("%d messages in memory, want at most %d", s.InMemory, maxMessages)
			}
			well.Store(true)
			r.waitCount(subjects.Inbound(), 0)
			if again := checkOrder(t, api.accepted(), tt.backlog+others); again != 0 {
				t.Errorf("%d posted twice", again)
			}
			api.checkOverlap(t)
		})
	}
}

// mortal is the API as one bridge process sees it. After the process is killed its
// requests may still be carried out, but it gets no answer.
type mortal struct {
	*fakeAPI
	dead   chan struct{}
	killed *atomic.Int64 // posts that were under way at a kill
}

func (a *mortal) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	select {
	case <-a.dead:
		<-ctx.Done()
		return plaspy.Answer{}, ctx.Err()
	default:
	}
	answer, err := a.post(ctx, id, body, o)
	select {
	case <-a.dead:
		a.killed.Add(1)
		<-ctx.Done()
		return plaspy.Answer{}, ctx.Err()
	default:
		return answer, err
	}
}

// TestKilled: the process dies five times in the middle of its work. Nothing is
// lost, the order holds, and only messages in flight may come twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	const n, devices, kills = 3000, 40, 5
	r := newRig(t)
	var tries, killed atomic.Int64
	api := newFakeAPI(func(string, int, []byte) error {
		if tries.Add(1)%10 < 3 {
			return status(500)
		}
		return nil
	})
	r.putMany(n, func(i int) string { return device(i % devices) })
	for k := range kills {
		life := &mortal{fakeAPI: api, dead: make(chan struct{}), killed: &killed}
		c := r.consumer(life, func(c *Consumer) { c.opt.Grace = time.Millisecond })
		stop := run(t, c)
		api.waitFor(t, "progress", func(took []accepted) bool { return len(took) >= (k+1)*n/(kills+2) })
		close(life.dead)
		// Without its connection it can neither acknowledge nor hand back.
		c.opt.JetStream.Conn().Close()
		stop()
	}
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	// A post is repeated if its acknowledgement was still to come: the
	// workers' posts at each kill at most.
	if again := checkOrder(t, api.accepted(), n); again > kills*8 {
		t.Errorf("%d posted twice, want at most %d", again, kills*8)
	}
	if got := r.count(subjects.DeadLetters()); got != 0 {
		t.Errorf("%d dead letters", got)
	}
	r.waitCount(subjects.Results(), n)
}

// TestBroker: NATS is killed and started again in the middle of the work.
func TestBroker(t *testing.T) {
	t.Parallel()
	const n = 800
	r := newRig(t, natstest.Listen)
	api := newFakeAPI(nil)
	api.delay = time.Millisecond
	r.putMany(n, func(i int) string { return device(i % 30) })
	// A request that the server took when it died is repeated after that time.
	run(t, r.consumer(api, func(c *Consumer) {
		c.opt.request, c.opt.recording, c.opt.pause = time.Second, time.Second, 100*time.Millisecond
	}))
	for k := range 2 {
		api.waitFor(t, "progress", func(took []accepted) bool { return len(took) >= (k+1)*n/4 })
		r.srv.Kill()
		r.srv.Restart()
	}
	api.waitFor(t, "posts of all", func(took []accepted) bool { return distinct(t, took) == n })
	// Results that could not be stored were kept, so that nothing is posted
	// again: but for acknowledgements that the server lost when it died.
	if again := checkOrder(t, api.accepted(), n); again > 2*8 {
		t.Errorf("%d posted twice, want at most %d", again, 2*8)
	}
	api.checkOverlap(t)
}

func distinct(t testing.TB, took []accepted) int {
	t.Helper()
	seen := map[int]bool{}
	for _, p := range took {
		seen[number(t, p.body)] = true
	}
	return len(seen)
}

// TestOutage: while the API is down nothing is spent, few tries go out, and
// everything is delivered in order afterwards.
func TestOutage(t *testing.T) {
	t.Parallel()
	const n, devices = 1000, 50
	r := newRig(t)
	var down atomic.Bool
	var during atomic.Int64
	down.Store(true)
	api := newFakeAPI(func(string, int, []byte) error {
		if down.Load() {
			during.Add(1)
			return status(503)
		}
		return nil
	})
	r.putMany(n, func(i int) string { return device(i % devices) })
	c := r.consumer(api, func(c *Consumer) { c.opt.BackoffMax = time.Minute })
	run(t, c)
	natstest.Eventually(t, "the outage", func() bool { return c.Degraded() != "" })
	began, probes := time.Now(), during.Load()
	// That few tries go out shows only in time that passes.
	natstest.Eventually(t, "a probe", func() bool { return time.Since(began) > 2500*time.Millisecond && during.Load() > probes })
	got := during.Load() - probes
	if took := time.Since(began); got > int64(took/time.Second)+8 {
		t.Errorf("%d tries in %v of outage, want the workers' last ones and a probe each second", got, took)
	}
	if s := c.Status(); s.Parked == 0 || s.InMemory > maxMessages {
		t.Errorf("status during the outage: %+v", s)
	}
	down.Store(false)
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), n); again != 0 {
		t.Errorf("%d posted twice", again)
	}
	if got := r.count(subjects.DeadLetters()); got != 0 || c.Degraded() != "" {
		t.Errorf("%d dead letters, degraded %q", got, c.Degraded())
	}
}

// TestDrain: posts that are in flight when the consumer stops are finished and
// acknowledged; other messages are returned at once.
func TestDrain(t *testing.T) {
	r := newRig(t)
	api := newFakeAPI(nil)
	started, gate := make(chan string, 10), make(chan struct{})
	api.answer = func(id string, _ int, _ []byte) error {
		started <- id
		if id == device(0) {
			<-gate
			return nil
		}
		return nil
	}
	r.putMany(2, func(int) string { return device(0) })
	c := r.consumer(api)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	<-started
	cancel()
	close(gate)
	<-done
	// The second post may begin before the consumer notices the stop.
	posts := len(api.accepted())
	if posts == 0 {
		t.Fatal("the post in flight did not end")
	}
	if got := r.count(subjects.Inbound()); got != 2-posts {
		t.Errorf("%d messages left after %d posts of 2", got, posts)
	}
	if got := r.count(subjects.Results()); got != posts {
		t.Errorf("%d results of %d posts", got, posts)
	}
	run(t, r.consumer(api))
	r.waitCount(subjects.Inbound(), 0)
	if again := checkOrder(t, api.accepted(), 2); again != 0 {
		t.Errorf("%d posted twice", again)
	}
}
