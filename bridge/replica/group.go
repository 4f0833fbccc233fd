package replica

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/replica/rendezvous"
	"plaspy-bridge/publisher"
)

// DefaultLease is how long a replica may be silent before it is replaced. The new
// plan and its acknowledgement take a quarter of a second more. A lease that is lost
// needlessly costs the same interruption, so DefaultLease is not much shorter than a
// leader election of the broker.
const DefaultLease = 5 * time.Second

// Options are the settings of a [Group]. ID, JS and Subjects are required.
type Options struct {
	// ID is this replica's name (BRIDGE_REPLICA_ID). Two processes with the same name
	// are still two replicas.
	ID       string
	JS       jetstream.JetStream
	Subjects publisher.Subjects
	Replicas int           // of the bucket, if it is created; 0 means 1
	Lease    time.Duration // the same for all replicas; 0 means DefaultLease
	Limit    int           // requests per minute of all replicas together; 0 means no limit

	// Settings holds a short digest of each setting, or group of settings, that all
	// replicas should have in common, by its name. Other replicas see it. It must not
	// be changed.
	Settings map[string]string

	// Consumes means that this replica can post inbound messages. One of the replicas
	// that can has the posting seat, see [Group.AwaitPosts].
	Consumes bool
	// Grace is how long Run, once its context is cancelled, waits for
	// [Group.ReleasePosts], and without other replicas for its work in flight; 0 means 15 s.
	Grace time.Duration
	// OnThrottle receives the arguments of another replica's call of
	// [Group.Throttled], on the goroutine of Run. Optional.
	OnThrottle func(until time.Time, factor float64)

	Log        *slog.Logger // nil means none
	Registerer prometheus.Registerer
}

// InFlight is the work that is in flight for devices that are not assigned to this
// replica any more. The zero value means none.
type InFlight struct {
	Ended <-chan struct{} // closed when it has ended
	// Revoke forbids the work to publish anything more, before other replicas take over
	// without waiting for its end.
	Revoke func()
}

// Load is the number of requests a minute that a replica would send without a budget.
type Load struct {
	Polls int // 0 means not known yet, and counts as the average
	Posts int
	// NoAPI means that this replica cannot reach the API. If another one can, that
	// one gets the posting seat.
	NoAPI bool
}

// Assignment is a replica's part of the work. It is valid while [Group.Live] is true.
type Assignment struct {
	// Owned reports whether a device belongs to this replica, by the device's token in
	// subjects. It is never nil, does not check the lease, and is safe for concurrent
	// use.
	Owned func(token string) bool
	// Share is the part of Options.Limit that this replica may use: 0 to 1.
	Share float64
	// Members is the number of replicas that share the work; 0 means none is known.
	Members int
	// Epoch is the plan's number.
	Epoch uint64
	// Moved means that Owned differs from that of the last call that was not
	// Suspended. If it is false, only the share changed.
	Moved bool
	// Gained means that Owned may hold for devices for which it did not in that call.
	// If it is false, this replica alone polled its devices in between.
	Gained bool
	// Suspended means that the lease ran out, so nothing is owned and Share is 0. The
	// devices may return with the next call if no other replica has taken over.
	Suspended bool
}

// Group is this replica's membership. Make it with [New], run it once with
// [Group.Run].
type Group struct {
	opts  Options
	log   *slog.Logger
	clock func() clock.Moment // tests replace it

	lease   atomic.Pointer[clock.Moment] // when the last renewal that succeeded was sent; nil means no lease
	stopped atomic.Bool                  // Run is stopping, so the lease gives no more rights
	seat    postingSeat
	trouble atomic.Pointer[string]
	standby atomic.Pointer[string]
	members atomic.Int64

	differences atomic.Pointer[[]Difference] // written by the goroutine of Run

	wake chan struct{} // there is something to write

	mu     sync.Mutex
	brakes *throttling // to be sent to the other replicas; guarded by mu

	// Of the goroutine of Run.
	load       func() Load
	change     func(Assignment) InFlight
	last       assigned
	quarantine clock.Moment // until then this replica writes no plan
	epoch      uint64       // of the last plan that it knew, in any membership
}

// assigned holds the last arguments of Group.change, and its result.
type assigned struct {
	assignment Assignment
	owned      rendezvous.Views // assignment.Owned as views
	before     rendezvous.Views // the same of the last assignment that was not suspended
	inFlight   InFlight         // for devices that were given up, unless it has ended
}

// settled reports whether the work for devices that were given up has ended.
func (a *assigned) settled() bool {
	select {
	case <-a.inFlight.Ended:
		a.inFlight = InFlight{}
	default:
	}
	return a.inFlight.Ended == nil
}

// revoke ends the right of that work to publish.
func (a *assigned) revoke() {
	if !a.settled() {
		a.inFlight.Revoke()
		a.inFlight = InFlight{}
	}
}

// New makes a group that owns nothing until it runs.
func New(o Options) *Group {
	if o.Lease <= 0 {
		o.Lease = DefaultLease
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace <= 0 {
		o.Grace = 15 * time.Second
	}
	o.Replicas = max(o.Replicas, 1)
	g := &Group{opts: o, log: o.Log, clock: clock.System, wake: make(chan struct{}, 1)}
	g.seat.changed = make(chan struct{})
	g.troubled("the replicas were not read yet")
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_replicas", Help: "Replicas that share the work, this one included; 0 while this replica has no lease.",
		}, func() float64 {
			if !g.Live() {
				return 0
			}
			return float64(g.members.Load())
		}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "plaspy_bridge_replicas_different_settings", Help: "Live replicas whose settings differ from this replica's, of those that must agree.",
		}, func() float64 { return float64(len(g.Differences())) }))
	}
	return g
}

// Run takes part until ctx is cancelled, then gives up its devices and leaves. It
// returns an error if it could not announce this to the other replicas, which then
// wait for the lease to run out.
//
// It calls load for the load of this replica at each renewal; load must not block. It
// calls change with each new assignment, the first time before anything is owned. When
// a call returns, no more work may begin for the devices that it removed. Other
// replicas take them over once the work that it returns has ended. The lease is not
// renewed while a call runs.
func (g *Group) Run(ctx context.Context, load func() Load, change func(Assignment) InFlight) error {
	g.load, g.change = load, change
	change(Assignment{Owned: g.last.owned.Own})
	var logged string
	for {
		err := g.join(ctx)
		if errors.Is(err, errStateLost) {
			g.abstain() // other replicas may have lost their state too and still hold leases
		}
		g.release(ctx)
		if ctx.Err() != nil {
			return err
		}
		if full := publisher.Full(err); full != "" {
			err = errors.New(full)
		}
		if text := err.Error(); text != logged {
			logged = text
			g.log.Warn("could not join the replica group, retrying", "err", err)
		}
		g.troubled(err.Error())
		pace := time.NewTimer(g.opts.Lease / 20)
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
		pace.Stop()
	}
}

// Live reports whether this replica holds its lease now, so that it may work for the
// devices of [Assignment.Owned] and use its share. It reads the clock, so it is false
// once the lease may be over, even if the process or the machine was suspended in
// between. Call it last before the work begins.
func (g *Group) Live() bool { return !g.stopped.Load() && g.leased() }

// leased reports whether the lease runs, also during a stop.
func (g *Group) leased() bool {
	sent := g.lease.Load()
	return sent != nil && g.clock().Within(g.valid(), *sent)
}

// Lapsed reports whether the lease ran out, and it is not known yet whether another
// replica took over. Like Live it reads the clock. Ask it before a publication of what
// began under the lease. If another replica took over, InFlight.Revoke is called before
// Lapsed is false again.
func (g *Group) Lapsed() bool { return g.lease.Load() != nil && !g.leased() }

// Trouble returns in one sentence why this replica has no assignment, or "".
func (g *Group) Trouble() string { return *g.trouble.Load() }

// Standby returns in one sentence why this replica has no assignment although nothing
// is wrong, or "". That is so if there are more replicas than requests a minute. It
// gets an assignment when another replica ends.
func (g *Group) Standby() string { return *g.standby.Load() }

func (g *Group) troubled(why string) {
	none := ""
	g.trouble.Store(&why)
	g.standby.Store(&none)
}

func (g *Group) standsBy(why string) {
	none := ""
	g.standby.Store(&why)
	g.trouble.Store(&none)
}

// abstain keeps this replica from writing a plan while unknown leases may run.
func (g *Group) abstain() { g.quarantine = g.clock().Add(g.opts.Lease) }

// valid is how long a renewal is valid for its sender. The rest of the lease is a
// margin for requests that are just being sent.
func (g *Group) valid() time.Duration { return g.opts.Lease * 3 / 4 }

// every is the time from one renewal to the next.
func (g *Group) every() time.Duration { return g.opts.Lease / 4 }

// notify wakes the goroutine of Run.
func (g *Group) notify() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// release gives up everything except posts in flight. If the lease runs, the bucket lost
// this replica's state. Other replicas wait as long as a lease then, and so may work in
// flight take as long and publish.
func (g *Group) release(ctx context.Context) {
	g.seat.set(false)
	g.surrender()
	if g.leased() && !g.last.settled() {
		g.lease.Store(nil) // it cannot be renewed
		over := time.NewTimer(g.opts.Lease)
		defer over.Stop()
		select {
		case <-g.last.inFlight.Ended:
		case <-over.C:
		case <-ctx.Done():
		}
	}
	g.last.revoke()
	g.lease.Store(nil)
}

// surrender gives up the devices and the share.
func (g *Group) surrender() {
	g.members.Store(0)
	g.differences.Store(nil)
	g.assign(Assignment{}, nil)
}

// assign calls change if an assignment differs from the last.
func (g *Group) assign(a Assignment, owned rendezvous.Views) {
	last := g.last.assignment
	same := g.last.owned.Equal(owned) && a.Share == last.Share && a.Members == last.Members && a.Suspended == last.Suspended
	if same {
		return
	}
	a.Owned = owned.Own
	if !a.Suspended {
		a.Moved, a.Gained = !g.last.before.Equal(owned), !owned.Within(g.last.before)
		g.last.before = owned
	}
	g.last.assignment, g.last.owned = a, owned
	if work := g.change(a); work.Ended != nil {
		g.last.inFlight = work
	}
}
