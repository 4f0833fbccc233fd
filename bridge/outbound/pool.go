package outbound

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// API is what the pool asks of the REST API. Its methods are safe for
// concurrent use; their errors are classified by [plaspy.Classify].
type API interface {
	Devices(ctx context.Context) (devices []plaspy.Device, skipped []error, err error)
	Groups(ctx context.Context) (groups []plaspy.Group, skipped []error, err error)
	LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error)
	Locations(ctx context.Context, id string, body []byte, opt plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, opt plaspy.PostOptions) (plaspy.Answer, error)
	DeviceURL(id string) string
}

// Budget gives out the right to send requests.
type Budget interface {
	// Wait blocks until a request of that kind may be sent.
	Wait(ctx context.Context, k plaspy.Kind) (*plaspy.Permit, error)
	// PollRate is how many polls a minute there is room for; +Inf: any.
	PollRate() float64
}

// Circuit holds polls back while the API is down.
type Circuit interface {
	// Allow reports whether a poll may go out now, and if not when to ask
	// again.
	Allow(now time.Time) (ok bool, at time.Time)
	// Report tells how a poll of a device ended.
	Report(device string, err error)
	// SetDevices tells how many devices there are.
	SetDevices(n int)
	// State tells whether the API is taken to be down.
	State() plaspy.CircuitState
}

// Stream is what the pool asks of the publisher.
type Stream interface {
	Publish(ctx context.Context, events []*publisher.Event, done func(error)) error
	State(ctx context.Context, allAlerts bool, f func(publisher.Stored)) (publisher.Mark, error)
	StateOf(ctx context.Context, device string, allAlerts bool, f func(publisher.Stored)) error
	Last(ctx context.Context, subject string) (*publisher.Stored, error)
	Mark(ctx context.Context) (publisher.Mark, error)
	Connected() bool
}

// Options are the pool's settings; the durations are positive.
type Options struct {
	Workers        int           // polls under way at once
	Refresh        time.Duration // of the device list
	EventGroups    bool          // events carry the groups of their device
	Select         inventory.Selection
	Positions      inventory.Positions // of removed devices; nil: they stay
	IgnoreFields   []string            // fields whose change alone is no change
	SilentAfter    time.Duration       // 0: never
	Backfill       bool
	BackfillAfter  time.Duration
	AlertHistory   bool
	Quota          *quota.Quota // results per device and day; nil means no limit
	BackoffInitial time.Duration
	BackoffMax     time.Duration
	Grace          time.Duration // how long polls under way may take to end once Run is told to stop

	// Posted reports whether the bridge itself posted a location; nil: never.
	Posted func(device string, at time.Time, lat, lon float64) bool
	// Live reports whether this replica may work at all now; nil: it may.
	Live func() bool
	// Owns is asked last before a poll whether the device, by its token, is this
	// replica's still; nil: it is.
	Owns func(token string) bool
	// Token waits until there is a token, and does not where the context has
	// ended; nil: no need. Without one no device
	// is chosen, so that a refused key neither occupies workers nor delays the
	// end.
	Token func(ctx context.Context) error
	// Trace makes a trace of every turn of a device; nil: there are none.
	Trace *trace.Tracer
	// Alive is called at every turn of the dispatcher; nil: nobody is
	// interested. It must not block.
	Alive func()
}

// Pool polls devices and publishes what changed. It is safe for concurrent use.
type Pool struct {
	api      API
	budget   Budget
	circuit  Circuit
	stream   Stream
	subjects publisher.Subjects
	opts     Options
	log      *slog.Logger
	metrics  *metrics
	ignore   func(key []byte) bool
	// ignoresAlerts: their change alone is no change of the location, but
	// still raises and clears.
	ignoresAlerts bool

	jobs   chan job
	wake   chan struct{} // the dispatcher should look again
	resync chan struct{} // the state should be read again
	// gapPatience is the constant of that name but in tests.
	gapPatience time.Duration
	tasks       sync.WaitGroup // started under the mutex, unless over

	// Readings of the state that were asked for, and the one that the state in
	// memory is of: while they differ nobody is polled.
	asked, loaded atomic.Uint64

	inventory  *inventory.Inventory
	widespread widespread

	mu       sync.Mutex
	policy   *schedule.Schedule
	devices  map[string]*device // by token, those no longer listed too
	byID     map[string]*device // active ones
	polled   atomic.Int64       // len(byID), for those that must not wait for the mutex
	owns     func(token string) bool
	rate     float64       // what the schedule plans with; negative: it was not told
	rated    time.Time     // when the schedule was last told the rate
	busy     int           // devices that are busy
	ended    uint64        // turns that ended
	idle     chan struct{} // where set: closed when none is
	over     bool          // Run is ending
	suspects int           // devices with failures that are being polled
	watched  bool          // somebody calls Changed
	touched  []*device     // what it has to be told of
	// Since when devices are put off because what lay in a gap cannot be read.
	waiting map[*device]time.Time
}

// job is one poll to make.
type job struct {
	d        *device
	permit   *plaspy.Permit
	suspect  bool // its last poll failed
	doubtful bool // its state has to be read first
}

// New makes a pool. Metrics are registered where reg is not nil.
func New(o Options, api API, budget Budget, circuit Circuit, stream Stream, subjects publisher.Subjects, policy *schedule.Schedule, log *slog.Logger, reg prometheus.Registerer) *Pool {
	p := &Pool{
		api: api, budget: budget, circuit: circuit, stream: stream, subjects: subjects, opts: o, log: log,
		ignore: rawjson.Ignore(o.IgnoreFields...), widespread: widespread{log: log},
		jobs: make(chan job), wake: make(chan struct{}, 1), resync: make(chan struct{}, 1),
		policy: policy, devices: make(map[string]*device), byID: make(map[string]*device), waiting: make(map[*device]time.Time), rate: -1, gapPatience: gapPatience,
		ignoresAlerts: slices.Contains(o.IgnoreFields, "alerts"),
	}
	p.metrics = newMetrics(reg, p)
	p.asked.Store(1)
	p.inventory = inventory.New(inventory.Options{
		Select: o.Select, Refresh: o.Refresh, BackoffInitial: o.BackoffInitial, BackoffMax: o.BackoffMax,
		Groups: o.EventGroups, Subjects: subjects, Positions: o.Positions, Conflict: p.metrics.conflicts.Inc, Trace: o.Trace, Log: log,
	}, api, stream, p)
	if o.EventGroups {
		p.stream = groupedStream{stream, subjects, p.inventory.Groups}
	}
	return p
}

// Run polls until the context ends; polls under way then have the grace period
// to end. Run returns when what
// they found is stored, or that period is over.
func (p *Pool) Run(ctx context.Context) {
	// What a poll was answered is published even where the end has come.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(p.opts.Grace, func() { cancel(errGrace) })
	})
	defer stop()

	var workers, loops sync.WaitGroup
	for range p.opts.Workers {
		workers.Go(func() { p.worker(work) })
	}
	loops.Go(func() { p.keepState(ctx) })
	loops.Go(func() { p.inventory.Run(ctx, work) })
	p.dispatch(ctx)
	close(p.jobs)
	workers.Wait()
	loops.Wait()
	p.settled(work)
}

// settled waits until every chain is stored, or the work's context ends.
func (p *Pool) settled(work context.Context) {
	p.mu.Lock()
	idle := make(chan struct{})
	if p.busy == 0 {
		close(idle)
	} else {
		p.idle = idle
	}
	p.mu.Unlock()
	select {
	case <-idle:
	case <-work.Done():
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.tasks.Wait()
}

// background runs f on a goroutine that Run waits for; false: it is too late
// for that.
func (p *Pool) background(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.tasks.Go(f)
	}
	return !p.over
}

// errNotOurs puts a poll off whose device another replica may have by now.
var errNotOurs = errors.New("another replica may have it by now")

// errGrace ends the polls that outlive the grace period.
var errGrace = errors.New("grace period is over")

// Resync has the state read from the stream again before the next poll: the
// connection was lost, or the stream is not the one that it was.
func (p *Pool) Resync() {
	p.asked.Add(1)
	nudge(p.resync)
}

// Own has only those devices polled that f claims, by token; nil: all. When it
// returns, no poll of any other begins. The state is read from the stream before
// the next poll, since another replica had what comes under care.
func (p *Pool) Own(f func(token string) bool) {
	now := time.Now()
	p.mu.Lock()
	p.owns = f
	gained := 0
	for _, d := range p.devices {
		if p.activate(now, d) {
			gained++
		}
	}
	p.circuit.SetDevices(len(p.byID))
	p.mu.Unlock()
	p.Resync()
	if gained > 0 {
		p.inventory.Compare() // their events are this replica's to publish now
	}
	nudge(p.wake)
}

// Ready tells in one sentence why the pool is not at work, or "".
func (p *Pool) Ready() string {
	if p.stale() {
		return "the state is being read from the stream"
	}
	return p.waitsLong()
}

// Work tells how many devices are being polled, or have what they showed on its
// way to the stream, and how many turns have ended so far.
func (p *Pool) Work() (underway int, ended uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy, p.ended
}

func (p *Pool) stats() schedule.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy.Stats(time.Now())
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *Pool) stale() bool { return p.loaded.Load() != p.asked.Load() }

// keepState reads the state whenever it is stale and the broker is there.
func (p *Pool) keepState(ctx context.Context) {
	const retry = 50 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	var complaint string
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.resync:
		case <-timer.C:
		}
		if !p.stale() {
			continue
		}
		if !p.stream.Connected() {
			timer.Reset(retry)
			continue
		}
		asked, start := p.asked.Load(), time.Now()
		if err := p.load(ctx); err != nil {
			timer.Reset(retry)
			if ctx.Err() == nil && err.Error() != complaint {
				complaint = err.Error()
				p.log.Warn("state not read from the stream, trying again", "err", err)
			}
			continue
		}
		complaint = ""
		p.loaded.Store(asked)
		p.mu.Lock()
		n := len(p.devices)
		p.mu.Unlock()
		p.log.Info("state read from the stream", "devices", n, "elapsed", time.Since(start).Round(time.Millisecond))
		nudge(p.wake)
	}
}

// doubt has the device's state read from the stream before its next poll.
func (p *Pool) doubt(d *device) {
	p.mu.Lock()
	d.doubtful = true
	p.mu.Unlock()
}

// activate puts a device into the schedule, or takes it out; true: it came
// under care. It runs under the mutex.
func (p *Pool) activate(now time.Time, d *device) bool {
	active := d.listed && p.owned(d)
	if active == d.active {
		return false
	}
	d.active = active
	defer func() { p.polled.Store(int64(len(p.byID))) }()
	p.touch(d)
	if !active {
		delete(p.byID, d.id)
		p.policy.Remove(now, d.id)
		return false
	}
	p.byID[d.id] = d
	p.policy.Add(now, d.id)
	return true
}

// owned reports whether a device is this replica's. It runs under the mutex.
func (p *Pool) owned(d *device) bool { return p.owns == nil || p.owns(d.token) }

// newDevice runs under the mutex.
func (p *Pool) newDevice(id, token string) *device {
	d := &device{id: id, token: token}
	if p.opts.AlertHistory {
		d.seenAlerts = make(map[alertKey]struct{})
	}
	p.devices[token] = d
	return d
}
