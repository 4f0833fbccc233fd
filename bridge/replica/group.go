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

// DefaultLease is how long a replica may be silent before it is replaced. That,
// with a new plan and its acknowledgement, takes a quarter of a second more. Losing
// a lease for nothing costs as much, so it is not much shorter than the time that a
// broker needs to elect a leader.
const DefaultLease = 5 * time.Second

// Options are a group's settings. ID, JS, Subjects and OnChange are required.
type Options struct {
	// ID is this replica's name (BRIDGE_REPLICA_ID). Two replicas with the same one
	// are still two.
	ID       string
	JS       jetstream.JetStream
	Subjects publisher.Subjects
	Replicas int           // of the bucket, if it is created; 0 means 1
	Lease    time.Duration // the same for all replicas; 0 means DefaultLease
	Limit    int           // requests per minute of all replicas together; 0 means no limit

	// Settings are those that all replicas should have in common: a short digest of
	// each setting, or group of settings, by its name. Other replicas see them. It
	// must not be changed.
	Settings map[string]string

	// Load returns how much this replica has to do. Optional. It is called at each
	// renewal and must not block.
	Load func() Load
	// Consumes says that this replica can post inbound messages. One of those that
	// can has the posting seat, see [Group.AwaitPosts].
	Consumes bool
	// Grace is how long Run, once its context is cancelled, waits for
	// [Group.ReleasePosts]; 0 means 15 s.
	Grace time.Duration
	// OnChange takes this replica's new part of the work, on the goroutine of Run.
	// The first call is made before anything is owned. Other replicas take over
	// the devices that a call takes away as soon as it returns. So it should return when no more
	// work on that begins, and it holds up the lease while it runs.
	OnChange func(Assignment)
	// OnThrottle takes the arguments of another replica's call of [Group.Throttled], on the
	// goroutine of Run. Optional.
	OnThrottle func(until time.Time, factor float64)

	Log        *slog.Logger // nil means none
	Registerer prometheus.Registerer
}

// Load is how much a replica would send if the budget permitted it, in requests a
// minute.
type Load struct {
	Polls int // 0 means not known yet, and counts as the average
	Posts int
	// NoAPI says that this replica cannot reach the API. If another one can, that
	// one gets the posting seat.
	NoAPI bool
}

// maxLoad is far more than any replica can do, and small enough to be multiplied:
// the bucket may hold anything.
const maxLoad = 1 << 30

// Assignment is a replica's part of the work, for as long as [Group.Live] says so.
type Assignment struct {
	// Owned reports whether a device belongs to this replica, by the token that
	// stands for it in subjects. It is never nil, does not look at the lease, and is
	// safe for concurrent use.
	Owned func(token string) bool
	// Share is the part of Options.Limit that this replica may use: 0 to 1.
	Share float64
	// Members is the number of replicas that share the work; 0 means none is known.
	Members int
	// Epoch is the plan's number.
	Epoch uint64
	// Moved says that Owned differs from that of the last call that was not
	// Suspended. If it is false, only the share changed.
	Moved bool
	// Suspended says that the lease ran out, so that Owned and Share are nothing.
	// No other replica need have taken over: the devices may be back with the next
	// call.
	Suspended bool
}

// Group is this replica's membership. Make it with [New], run it once with
// [Group.Run].
type Group struct {
	opts  Options
	log   *slog.Logger
	clock func() clock.Moment // tests replace it

	lease   atomic.Pointer[clock.Moment] // when the last renewal that succeeded was sent; nil means no lease
	stopped atomic.Bool                  // Run was told to stop: the lease gives no more rights
	seat    postingSeat
	owned   atomic.Pointer[rendezvous.Views]
	trouble atomic.Pointer[string]
	standby atomic.Pointer[string]
	members atomic.Int64

	differences atomic.Pointer[[]Difference] // written by the goroutine of Run

	wake chan struct{} // there is something to write

	mu     sync.Mutex
	brakes *throttling // to be sent to the other replicas; guarded by mu

	// Of the goroutine of Run.
	last       assigned
	quarantine clock.Moment // until then this replica writes no plan
	epoch      uint64       // of the last plan that it knew, in whichever membership
}

// assigned holds the last arguments of OnChange.
type assigned struct {
	assignment Assignment
	owned      rendezvous.Views // as views
	before     rendezvous.Views // the same of the last one that was not suspended
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
	g.troubled("the replicas of this bridge are not known yet")
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

// Handle sets Options.Load and Options.OnChange, for a caller whose receivers
// are made after the group. Call it before [Group.Run].
func (g *Group) Handle(load func() Load, change func(Assignment)) {
	g.opts.Load, g.opts.OnChange = load, change
}

// Run takes part until ctx is cancelled, then gives up its devices and leaves.
// Its error is that it could not announce this to the other replicas, so that they wait for its
// lease to run out.
func (g *Group) Run(ctx context.Context) error {
	g.opts.OnChange(Assignment{Owned: g.last.owned.Own})
	var complaint string
	for {
		err := g.join(ctx)
		g.release()
		if ctx.Err() != nil {
			return err
		}
		if full := publisher.Full(err); full != "" {
			err = errors.New(full)
		}
		if text := err.Error(); text != complaint {
			complaint = text
			g.log.Warn("could not join the replica group, retrying", "err", err)
		}
		g.troubled(err.Error())
		if errors.Is(err, errStateLost) {
			g.abstain() // others may have lost theirs too and still hold their leases
		}
		pace := time.NewTimer(g.opts.Lease / 20)
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
		pace.Stop()
	}
}

// Owns reports whether this replica may work for a device now, by its token. It is
// false from the instant at which the lease may be over, even if the process or the
// machine stood still and the end of the lease was not noticed yet. It is to be
// asked last before the work begins.
func (g *Group) Owns(token string) bool {
	owned := g.owned.Load()
	return owned != nil && owned.Own(token) && g.Live()
}

// Live reports whether this replica holds its lease now, so that it may use its
// share. Like Owns it looks at the clock.
func (g *Group) Live() bool { return !g.stopped.Load() && g.leased() }

// leased reports whether the other replicas still count on this one.
func (g *Group) leased() bool {
	sent := g.lease.Load()
	return sent != nil && g.clock().Within(g.valid(), *sent)
}

// Trouble says in one sentence why this replica has no part in the work, or "".
func (g *Group) Trouble() string { return *g.trouble.Load() }

// Standby says in one sentence why this replica has nothing to do although
// nothing is wrong, or "": there are more replicas than requests a minute. It
// gets a part of the work when another replica ends.
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

// abstain keeps this replica from writing a plan while a lease may run that it
// does not know of.
func (g *Group) abstain() { g.quarantine = g.clock().Add(g.opts.Lease) }

// valid is how long a renewal lasts for its sender. The rest of the lease is the
// time in which a request that was decided on may still go out.
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

// release gives everything up, but for posts that are in flight.
func (g *Group) release() {
	g.seat.set(false)
	g.lease.Store(nil)
	g.surrender()
}

// surrender gives devices and share up.
func (g *Group) surrender() {
	g.members.Store(0)
	g.differences.Store(nil)
	g.assign(Assignment{}, nil)
}

// assign calls OnChange if an assignment differs from the last.
func (g *Group) assign(a Assignment, owned rendezvous.Views) {
	last := g.last.assignment
	same := g.last.owned.Equal(owned) && a.Share == last.Share && a.Members == last.Members && a.Suspended == last.Suspended
	g.owned.Store(&owned)
	if same {
		return
	}
	a.Owned = owned.Own
	if !a.Suspended {
		a.Moved = !g.last.before.Equal(owned)
		g.last.before = owned
	}
	g.last.assignment, g.last.owned = a, owned
	g.opts.OnChange(a)
}
