package outbound

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/outbound/gap"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/outbound/widespread"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// API is the part of the REST API that a poll needs. Its methods are safe for
// concurrent use; their errors are classified by [plaspy.Classify].
type API interface {
	LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error)
	DeviceURL(id string) string
}

// Budget grants the right to send requests.
type Budget interface {
	// Wait blocks until a request of that kind may be sent.
	Wait(ctx context.Context, k plaspy.Kind) (*plaspy.Permit, error)
	// PollRate is the number of polls a minute that the budget permits; +Inf
	// means no limit.
	PollRate() float64
}

// Circuit holds polls back while the API is down.
type Circuit interface {
	// Allow reports whether a poll may go out now, and if not when to ask again.
	Allow(now time.Time) (ok bool, at time.Time)
	// Report takes the result of a poll.
	Report(device string, err error)
	// State describes the circuit.
	State() plaspy.CircuitState
}

// State reads what the events stream holds.
type State interface {
	State(ctx context.Context, allAlerts bool, f func(publisher.Stored)) (publisher.Mark, error)
	StateOf(ctx context.Context, device string, allAlerts bool, f func(publisher.Stored)) error
	Mark(ctx context.Context) (publisher.Mark, error)
}

// Ownership decides which devices this replica polls. Its methods are safe for
// concurrent use and do not block.
type Ownership interface {
	// Owns reports whether a device, by its token, is assigned to this replica.
	// [Pool.Reassign] has to be called when its answers change.
	Owns(token string) bool
	// Live reports whether the replica may work now, because it holds its lease.
	Live() bool
	// Lapsed reports whether the lease ran out, and it is not known yet whether
	// another replica took over.
	Lapsed() bool
}

// Parts are the parts that a pool works with.
type Parts struct {
	API       API
	Devices   inventory.API
	Gaps      gap.API
	Budget    Budget
	Circuit   Circuit
	Events    inventory.Stream
	Positions inventory.Positions // of removed devices; nil means that they stay
	State     State
	Connected func() bool // the stream can be reached
	// RememberSilent keeps the silent alerts beyond the retention of the events. It is
	// called before the state is read if SilentAfter is set. Optional.
	RememberSilent func(ctx context.Context) error
	Owner          Ownership // nil means that this replica polls all devices
	// Assigned reports whether Owner has had its first assignment. The state is not
	// read before, because [Pool.Reassign] asks for a reading. Nil means always.
	Assigned func() bool
	// Forgotten reports whether a device, by its token, was erased and is therefore
	// not assigned to any replica. Nil means that none was.
	Forgotten func(token string) bool
	Schedule  *schedule.Schedule
	Memory    Memory // of the schedule; nil means none
	Subjects  publisher.Subjects
	Log       *slog.Logger
	Registry  prometheus.Registerer // nil means no metrics
}

// Options are the pool's settings. The durations are positive.
type Options struct {
	Workers        int           // polls in flight at once
	Refresh        time.Duration // of the device list
	EventGroups    bool          // events carry the groups of their device
	Select         inventory.Selection
	IgnoreFields   []string      // a change of these fields alone is no change
	SilentAfter    time.Duration // 0 means never
	Backfill       bool
	BackfillAfter  time.Duration
	BackfillMax    time.Duration // the furthest back that gaps are read; 0 means a day
	AlertHistory   bool
	Quota          *quota.Quota // results per device and day; nil means no limit
	BackoffInitial time.Duration
	BackoffMax     time.Duration
	Grace          time.Duration // how long polls in flight may take after Run's context is cancelled

	// Posted reports whether the bridge itself posted a location of a device, which is
	// named by its token. Optional.
	Posted func(device string, at time.Time, lat, lon float64) bool
	// SetDevices is called with the number of devices that are polled. It must
	// not block. Optional.
	SetDevices func(n int)
	// Token blocks until an API token is available. With a cancelled context it
	// only checks. Without a token no device is chosen, so that a refused key
	// neither occupies workers nor delays the end. Optional.
	Token func(ctx context.Context) error
	// Trace makes a trace of every turn of a device; nil means no traces.
	Trace *trace.Tracer
	// gapPatience replaces the constant of that name in tests.
	gapPatience time.Duration
	// minReread is [inventory.Options].MinReread; a test sets it.
	minReread time.Duration
	// Alive is called in every iteration of the dispatcher's loop. It must not block.
	// Optional.
	Alive func()
}

// gapPatience is how long a fix waits for a gap that cannot be read.
const gapPatience = time.Minute

// Pool polls devices and publishes what changed. It is safe for concurrent use.
type Pool struct {
	opts    Options
	parts   Parts
	log     *slog.Logger
	metrics *metrics
	parser  *track.Parser
	// ignoresAlerts is true if a change of the alerts alone is no change of the
	// location. It raises and clears alerts nevertheless.
	ignoresAlerts bool

	fleet      *fleet
	inventory  *inventory.Inventory
	gaps       *gap.Reader
	memory     memoryKeeper
	state      resync
	widespread *widespread.Failures

	dispatcher dispatcher
	life       life
}

// New makes a pool.
func New(o Options, parts Parts) *Pool {
	if parts.Owner == nil {
		parts.Owner = everything{}
	}
	if parts.Assigned == nil {
		parts.Assigned = func() bool { return true }
	}
	if parts.Forgotten == nil {
		parts.Forgotten = func(string) bool { return false }
	}
	if o.gapPatience == 0 {
		o.gapPatience = gapPatience
	}
	if o.BackfillMax <= 0 {
		o.BackfillMax = 24 * time.Hour
	}
	p := &Pool{
		opts: o, parts: parts, log: parts.Log, parser: track.NewParser(o.IgnoreFields, plaspy.ParseTime),
		ignoresAlerts: slices.Contains(o.IgnoreFields, "alerts"),
		widespread:    widespread.New(parts.Log),
	}
	p.state.init()
	p.metrics = newMetrics(parts.Registry)
	p.gaps = gap.New(gap.Options{
		Backfill: o.Backfill, After: o.BackfillAfter, History: o.AlertHistory, Max: o.BackfillMax, Patience: o.gapPatience,
		BackoffInitial: o.BackoffInitial, BackoffMax: o.BackoffMax, Quota: o.Quota, Parser: p.parser, Log: p.log,
		Found: func(n int) { p.metrics.backfilled.Add(float64(n)) }, Missing: p.metrics.gapErrors.Inc,
	}, parts.Gaps)
	p.inventory = inventory.New(inventory.Options{
		Select: o.Select, Refresh: o.Refresh, MinReread: o.minReread, BackoffInitial: o.BackoffInitial, BackoffMax: o.BackoffMax,
		Down:     func() bool { return parts.Circuit.State().Open },
		Subjects: parts.Subjects, Positions: parts.Positions, Groups: o.EventGroups, Conflict: p.metrics.conflicts.Inc, Trace: o.Trace, Log: p.log,
	}, parts.Devices, parts.Events, p)
	p.fleet = newFleet(parts.Schedule, parts.Owner, p.inventory.Memberships, o)
	p.dispatcher = dispatcher{
		pool: p, parts: &p.parts, fleet: p.fleet, state: &p.state, token: o.Token, reports: o.Alive,
		probed: probed{devices: make(map[string]struct{})}, jobs: make(chan *turn), wake: make(chan struct{}, 1),
	}
	p.memory = memoryKeeper{parts.Memory, p.fleet, p.log}
	if o.EventGroups {
		p.parts.Events = groupedEvents{parts.Events, parts.Subjects, p.inventory.Groups}
	}
	if parts.Registry != nil {
		parts.Registry.MustRegister(gauges(p)...) // last, because they may be read at once
	}
	return p
}

// everything is the ownership of a replica that is alone.
type everything struct{}

// Owns implements [Ownership].
func (everything) Owns(string) bool { return true }

// Live implements [Ownership].
func (everything) Live() bool { return true }

// Lapsed implements [Ownership].
func (everything) Lapsed() bool { return false }

// Run polls until ctx is cancelled. Polls in flight then have the grace period to
// end. Run returns when their results are stored, or when that period is over.
func (p *Pool) Run(ctx context.Context) {
	// An answer is published even if ctx has been cancelled meanwhile.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		p.gaps.Hurry()
		time.AfterFunc(p.opts.Grace, func() { cancel(errGrace) })
	})
	defer stop()

	var workers, loops sync.WaitGroup
	for range p.opts.Workers {
		workers.Go(func() { p.worker(work) })
	}
	loops.Go(func() { p.keepState(ctx) })
	loops.Go(func() { p.inventory.Run(ctx, work) })
	loops.Go(func() { every(ctx, termsEvery, func() { p.fleet.reportIntervals(p.log) }) })
	loops.Go(func() { p.memory.keep(ctx) })
	p.dispatcher.dispatch(ctx)
	p.life.close()
	close(p.dispatcher.jobs)
	workers.Wait()
	loops.Wait()
	select {
	case <-p.fleet.idleness():
	case <-work.Done():
	}
	p.life.end()
	if p.parts.Connected() {
		p.memory.last(p.opts.Grace)
	}
}

// life is the end of Run: the last job, and the last goroutine.
type life struct {
	mu      sync.Mutex
	closing bool           // the dispatcher has ended
	senders sync.WaitGroup // use jobs beside the dispatcher; started under mu, unless closing
	over    bool           // Run is ending
	tasks   sync.WaitGroup // started under mu, unless over
}

// close waits for the senders. None begins afterwards.
func (l *life) close() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.senders.Wait()
}

// enter counts a sender, which calls senders.Done at its end. It returns false if the
// dispatcher has ended.
func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.senders.Add(1)
	}
	return !l.closing
}

// end waits for the goroutines of background. None begins afterwards.
func (l *life) end() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.tasks.Wait()
}

// background runs f on a goroutine that Run waits for. It returns false if Run has
// ended.
func (l *life) background(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.tasks.Go(f)
	}
	return !l.over
}

// errNotOurs ends the turn of a device that this replica may no longer own.
var errNotOurs = errors.New("another replica may be polling this device")

// errGrace ends the polls that outlive the grace period.
var errGrace = errors.New("grace period is over")

// Resync requests that the state is read from the stream before the next poll. It is
// called after the connection was lost, or if the stream may have lost data.
func (p *Pool) Resync() {
	p.state.doubts.Add(1)
	p.state.ask()
}

// Reassign asks the pool's [Ownership] again which devices to poll. When it
// returns, no poll of another device begins. If devices may have been gained, the state
// is read from the stream before the next poll, since other replicas polled them.
//
// The turns in flight of devices that are not this replica's any more go on and publish
// their answers. The channel settled is closed when they have ended. No other replica
// may poll these devices before that, or before a call of revoke, after which the
// turns publish nothing.
func (p *Pool) Reassign(gained bool) (settled <-chan struct{}, revoke func()) {
	if gained {
		p.state.ask() // first, so that no device that is added now is polled before
	}
	added, settled := p.fleet.reassign(time.Now())
	if added > 0 {
		p.inventory.Compare() // their events are this replica's to publish now
	}
	nudge(p.dispatcher.wake)
	return settled, p.fleet.revokeGiven
}

// Ownership implements [inventory.Fleet].
func (p *Pool) Ownership() (owns func(token string) bool, ok bool) {
	if p.state.stale() {
		return nil, false
	}
	return p.parts.Owner.Owns, true
}

// Follow implements [inventory.Fleet].
func (p *Pool) Follow(devices []inventory.Device) {
	p.fleet.follow(time.Now(), devices)
	p.reviseTerms() // the members of groups may be others now
	nudge(p.dispatcher.wake)
}

// Listed describes the last reading of the device list.
func (p *Pool) Listed() inventory.State { return p.inventory.State() }

// Owned returns the number of devices that this replica polls.
func (p *Pool) Owned() int { return int(p.fleet.size.polled.Load()) }

// Demand returns the polls a minute that this replica's devices need: one each
// interval, or each interval of their own.
func (p *Pool) Demand(interval time.Duration) float64 {
	s := &p.fleet.size
	others := max(s.polled.Load()-s.timed.Load(), 0)
	return float64(others)*float64(time.Minute)/float64(interval) + math.Float64frombits(s.demand.Load())
}

// Widespread returns whether the polls of all devices fail, and why.
func (p *Pool) Widespread() widespread.State { return p.widespread.State() }

// NotReady returns in one sentence why the pool is not at work, or "".
func (p *Pool) NotReady() string {
	if p.state.stale() {
		return "the state is being read from the stream"
	}
	return p.gaps.Waiting()
}

// Work returns the number of devices that are busy, because they are polled or
// because their events are not stored yet, and the number of turns that have
// ended.
func (p *Pool) Work() (underway int, ended uint64) { return p.fleet.work() }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
