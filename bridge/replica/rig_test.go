package replica

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

var proof = flag.Bool("proof", false, "run the proofs with clusters and many replicas too; takes minutes")

// within is the longest that something may take that is promised within d: twice that in
// the proofs, which run by themselves, and beside other tests almost the lease of
// production. A wait for a lease shows.
func within(d time.Duration) time.Duration {
	most := max(d, DefaultLease-500*time.Millisecond)
	if *proof {
		return min(2*d, most)
	}
	return most
}

// timed runs a test beside others, except in the proofs, which measure it by itself.
func timed(t *testing.T) {
	t.Helper()
	if !*proof {
		t.Parallel()
	}
}

// needsProof skips a test unless the proofs were asked for.
func needsProof(t *testing.T) {
	t.Helper()
	if !*proof {
		t.Skip("a proof that takes its time; run with -proof")
	}
}

const (
	// testLease is short, for quick tests, and long enough for a busy machine.
	testLease = time.Second
	// patience is long enough for a busy machine: a step that takes longer has failed.
	patience = 4 * time.Minute
	subjects = publisher.Subjects("plaspy")
)

// rig is a broker with replicas that share devices. It fails the test if ever
// two own the same device, or the shares in force add up to more than 1.
type rig struct {
	*testing.T

	server *natstest.Server
	tokens []string
	urls   string // if set: of a cluster, instead of the server
	copies int    // of the bucket
	// blind: until then nothing is checked, because the bucket was lost.
	blind time.Time
	// unlimited: there is no budget to exceed, and shares say nothing.
	unlimited bool

	mu       sync.Mutex
	replicas []*node // those that were started
	changed  chan struct{}
}

// node is one replica in its own "process": with its own connection.
type node struct {
	*Group

	rig  *rig
	id   string
	nc   *nats.Conn
	gate *gate
	stop context.CancelFunc
	done chan struct{}
	err  error // of Run
	hold chan struct{}
	load int
	now  func() clock.Moment // nil: the system's clocks

	last      Assignment           // guarded by the rig's mutex
	without   int                  // likewise: assignments of nothing, except in a suspension
	turns     turns                // likewise
	posting   bool                 // likewise: posts may be under way
	sent      clock.Moment         // likewise: when the last renewal was sent
	lapsed    bool                 // likewise: the lease under which they were begun ran out
	finish    func() time.Duration // how long posts under way take at most; nil: nothing
	consumed  chan struct{}        // closed when the consumer has ended
	throttled chan float64
}

func newRig(t *testing.T, devices int) *rig {
	r := &rig{T: t, server: natstest.Start(t), changed: make(chan struct{}, 1)}
	for i := range devices {
		r.tokens = append(r.tokens, fmt.Sprintf("dev=20%d", i))
	}
	return r
}

// start starts a replica; set changes its options.
func (r *rig) start(id string, set ...func(*node, *Options)) *node {
	r.Helper()
	n := &node{rig: r, id: id, gate: newGate(r.server), done: make(chan struct{}), throttled: make(chan float64, 100)}
	var err error
	opts := []nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectBufSize(-1), nats.Timeout(time.Minute),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	if r.urls == "" {
		opts = append(opts, nats.InProcessServer(n.gate))
	}
	n.nc, err = nats.Connect(r.urls, opts...)
	if err != nil {
		r.Fatal(err)
	}
	js, err := jetstream.New(n.nc)
	if err != nil {
		r.Fatal(err)
	}
	o := Options{
		ID: id, JS: js, Subjects: subjects, Replicas: r.copies, Lease: testLease, Limit: 6000,
		Consumes:   true,
		OnThrottle: func(_ time.Time, factor float64) { n.throttled <- factor },
	}
	if os.Getenv("REPLICA_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("id", id)
	}
	for _, f := range set {
		f(n, &o)
	}
	n.Group = New(o)
	if n.now != nil {
		n.clock = n.now
	}
	r.mu.Lock()
	r.replicas = append(r.replicas, n)
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.run(ctx, func() Load {
		r.mu.Lock()
		hold, load := n.hold, n.load
		r.mu.Unlock()
		if hold != nil {
			<-hold
		}
		return Load{Polls: load}
	}, func(a Assignment) InFlight { return r.change(n, a) })
	r.Cleanup(n.kill)
	return n
}

// run runs the group and a stand-in for the consumer side.
func (n *node) run(ctx context.Context, load func() Load, change func(Assignment) InFlight) {
	n.consumed = make(chan struct{})
	go func() {
		defer close(n.done)
		n.err = n.Run(ctx, load, change)
	}()
	go func() {
		defer close(n.consumed)
		n.consume(ctx)
	}()
}

// consume posts whenever this replica has the seat. Posts that are under way when
// it is lost take a while.
func (n *node) consume(ctx context.Context) {
	r := n.rig
	posting := func(now bool) {
		r.mu.Lock()
		n.posting = now
		r.check()
		r.mu.Unlock()
	}
	for {
		held, err := n.AwaitPosts(ctx)
		if err != nil {
			return
		}
		posting(true)
		select {
		case <-held.Done():
		case <-ctx.Done():
		}
		r.mu.Lock()
		finish := n.finish
		r.mu.Unlock()
		if finish != nil {
			time.Sleep(finish()) // in simulated time
		}
		posting(false)
		n.ReleasePosts()
	}
}

// leave stops the replica as SIGTERM would.
func (n *node) leave() {
	n.stop()
	<-n.done
	<-n.consumed
	n.nc.Close()
}

// kill ends the replica without a goodbye.
func (n *node) kill() {
	n.gate.open()
	n.nc.Close()
	n.stop()
	n.resume()
	<-n.done
	<-n.consumed
}

// pause stops the group's goroutine at its next renewal, as SIGSTOP would stop
// the process; resume lets it continue.
func (n *node) pause() {
	n.rig.mu.Lock()
	defer n.rig.mu.Unlock()
	if n.hold == nil {
		n.hold = make(chan struct{})
	}
}

func (n *node) resume() {
	n.rig.mu.Lock()
	defer n.rig.mu.Unlock()
	if n.hold != nil {
		close(n.hold)
		n.hold = nil
	}
}

// state is the last assignment.
func (n *node) state() Assignment {
	n.rig.mu.Lock()
	defer n.rig.mu.Unlock()
	return n.last
}

func (r *rig) change(n *node, a Assignment) InFlight {
	r.mu.Lock()
	n.last = a
	if a.Members == 0 && !a.Suspended {
		n.without++
	}
	r.check()
	given := n.turns.giveUp(r, a)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return given
}

// check runs under the mutex, so a replica can lose devices meanwhile only
// by the end of its lease.
func (r *rig) check() {
	for _, n := range r.replicas {
		// Ownership ends when the lease has run out, even if answers still
		// come, but not when the lease was only given up.
		if sent := n.lease.Load(); sent != nil {
			n.sent = *sent
		}
		n.lapsed = (n.lapsed || !n.clock().Within(n.valid(), n.sent)) && !n.Posting() || time.Now().Before(r.blind)
	}
	if time.Now().Before(r.blind) {
		return
	}
	sum := 0.
	for _, n := range r.replicas {
		if n.Live() {
			sum += n.last.Share
		}
	}
	if sum > 1+1e-9 && !r.unlimited {
		r.Errorf("shares in force add up to %v", sum)
	}
	var poster *node
	for _, n := range r.replicas {
		if !n.posting || n.lapsed {
			continue
		}
		if poster != nil && poster.clock().Within(poster.valid(), poster.sent) {
			r.Errorf("%s and %s may have posts under way", poster.id, n.id)
		}
		poster = n
	}
	for _, token := range r.tokens {
		var owner *node
		for _, n := range r.replicas {
			if !n.ownsLocked(token) {
				continue
			}
			// The first one's state must not have changed.
			if owner != nil && owner.ownsLocked(token) {
				r.Errorf("%s is owned by %s and by %s", token, owner.id, n.id)
			}
			owner = n
		}
	}
}

// await waits until the condition holds, looking after every change and at
// every tick of a lease.
func (r *rig) await(what string, cond func() bool) {
	r.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(testLease / 50)
	defer tick.Stop()
	for {
		r.mu.Lock()
		r.check()
		ok := cond()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-tick.C:
		case <-limit.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, n := range r.replicas {
				r.Logf("%s: %+v, live %t, posting %t, trouble %q", n.id, n.last, n.Live(), n.posting, n.Trouble())
			}
			r.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// divided reports whether just these replicas share all devices and the whole
// budget.
func (r *rig) divided(among ...*node) bool {
	owners, sum, share, posters := r.ownersLocked(), 0, 0., 0
	for _, n := range among {
		if !n.Live() || n.last.Members != len(among) || owners[n] == 0 && len(r.tokens) > 20*len(among) {
			return false
		}
		sum += owners[n]
		share += n.last.Share
		if n.posting && n.Posting() {
			posters++
		}
	}
	return posters == 1 && sum == len(r.tokens) && (share > 1-1e-9 || r.unlimited)
}

func (r *rig) awaitDivided(among ...*node) {
	r.Helper()
	r.await(fmt.Sprintf("%d replicas share the work", len(among)), func() bool { return r.divided(among...) })
}

// awaitOwners is awaitDivided, and returns the owner of each device at that moment.
func (r *rig) awaitOwners(among ...*node) (owners map[string]*node) {
	r.Helper()
	r.await(fmt.Sprintf("%d replicas share the work", len(among)), func() bool {
		owners = r.byTokenLocked()
		return r.divided(among...) && len(owners) == len(r.tokens)
	})
	return owners
}

// gaveUp returns a condition for await: the replica has given up everything since now,
// for however short a time.
func (r *rig) gaveUp(n *node) func() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := n.without
	return func() bool { return n.without > before }
}
