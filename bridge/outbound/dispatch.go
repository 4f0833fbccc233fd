package outbound

import (
	"context"
	"sync"
	"time"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/tick"
)

// dispatcher hands devices to the workers: the one that the schedule chooses, when polls
// may go out and the budget has a request left. Its loop is dispatch. Polls on demand
// use it beside that.
type dispatcher struct {
	pool    *Pool // of the turns
	parts   *Parts
	fleet   *fleet
	state   *resync
	token   func(ctx context.Context) error // see Options.Token
	reports func()                          // see Options.Alive

	probed probed
	jobs   chan *turn
	wake   chan struct{} // ends a sleep of the loop
}

// dispatch hands devices to workers until ctx is cancelled. Each iteration asks gate
// whether polls may go out, and hand to send one.
func (d *dispatcher) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	var r rest
	var w shortWait
	defer w.end()
	var open time.Time // the gate's answer holds until then
	for ctx.Err() == nil {
		d.alive()
		now, at := time.Now(), time.Time{}
		ok := now.Before(open)
		if !ok {
			at, ok = d.gate(ctx)
			open = now.Add(gateHolds)
		}
		if ok {
			at, ok = d.hand(ctx, now, open, &w)
		}
		if ok {
			r.polls++
			tick.Awake()
			continue
		}
		open = time.Time{}
		r.adapt()
		sleep(ctx, timer, d.wake, at, r.length)
	}
}

// sleep waits until at, at least for least and at most for longestSleep. A signal ends it
// early, after least. The usual sleep has one timer and so one wake-up.
func sleep(ctx context.Context, timer *time.Timer, wake <-chan struct{}, at time.Time, least time.Duration) {
	began, length := time.Now(), longestSleep
	if !at.IsZero() {
		length = min(max(at.Sub(began), least), longestSleep)
	}
	timer.Reset(length)
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
		pause(ctx, timer, least-time.Since(began))
	}
}

// rest is the shortest sleep of the dispatcher. At high rates one wake-up for all
// polls that become due meanwhile costs far less than one for each. It delays polls
// by milliseconds, but no answers.
type rest struct {
	length time.Duration
	polls  int // since the last rest
}

// The bounds of a rest.
const (
	shortRest = 2 * time.Millisecond
	longRest  = 16 * time.Millisecond
)

// adapt lengthens the rest if there was more than one poll since the last one.
func (r *rest) adapt() {
	if r.polls > 1 {
		r.length = min(2*r.length, longRest)
	} else {
		r.length /= 2
	}
	r.length = max(r.length, shortRest)
	r.polls = 0
}

// pause sleeps until ctx ends, for d at most.
func pause(ctx context.Context, timer *time.Timer, d time.Duration) {
	if d <= 0 {
		return
	}
	timer.Reset(d)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// longestSleep bounds each wait of the dispatcher, so that it reports regularly that
// it is alive.
const longestSleep = 5 * time.Second

// shortWait is the context of the dispatcher's waits for a worker, and for the budget, which may have
// no request left for an hour. It ends within longestSleep. One context serves many
// polls, because one for each would cost more than the budget does.
type shortWait struct {
	context.Context
	cancel context.CancelFunc
	renew  time.Time
}

// within returns a context that ends with ctx, and after longestSleep or half of it.
func (w *shortWait) within(ctx context.Context, now time.Time) context.Context {
	if w.Context == nil || w.Err() != nil || !now.Before(w.renew) {
		w.end()
		w.Context, w.cancel = context.WithTimeout(ctx, longestSleep)
		w.renew = now.Add(longestSleep / 2)
	}
	return w.Context
}

func (w *shortWait) end() {
	if w.cancel != nil {
		w.cancel()
	}
}

// cancelled is a cancelled context, for calls that must not block.
var cancelled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// gateHolds is how long polls may go out after the gate has admitted them. At high rates each look would be a
// system call, for the clock of the lease. A publication looks in any case.
const gateHolds = time.Millisecond

// gate reports whether polls may go out, and if not, when to ask again. While the
// broker cannot be reached an answer could not be published, so none is requested.
func (d *dispatcher) gate(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if d.state.stale() || !d.parts.Connected() || !d.parts.Owner.Live() {
		return now.Add(100 * time.Millisecond), false
	}
	if d.token != nil && d.token(cancelled) != nil {
		short, cancel := context.WithTimeout(ctx, longestSleep)
		defer cancel()
		if d.token(short) != nil {
			return now, false
		}
	}
	if c := d.parts.Circuit.State(); c.Open && now.Before(c.NextProbe) {
		return c.NextProbe, false
	}
	return time.Time{}, true
}

// held returns why all polls are held back now, or "".
func (d *dispatcher) held() string {
	switch {
	case !d.parts.Connected():
		return "NATS is not connected, or its streams are missing"
	case !d.parts.Assigned():
		return "this replica has no devices assigned yet"
	case d.state.stale():
		return "the state is being read from the stream"
	case !d.parts.Owner.Live():
		return "this replica does not hold its lease"
	case d.token != nil && d.token(cancelled) != nil:
		return "there is no token"
	}
	if c := d.parts.Circuit.State(); c.Open {
		return "the API is down, next probe " + c.NextProbe.UTC().Format(time.TimeOnly)
	}
	return ""
}

// hand waits for the budget, then sends the device that the schedule chooses to a
// worker. ok is false if nothing is due before at, or if the short context ends first.
func (d *dispatcher) hand(ctx context.Context, now, open time.Time, w *shortWait) (at time.Time, ok bool) {
	permit, err := d.parts.Budget.Wait(w.within(ctx, now), plaspy.Poll)
	if err != nil {
		return time.Now(), false
	}
	return d.send(ctx, w, permit, open)
}

// send uses a permit for the device that the schedule chooses now, and blocks until a
// worker takes it or ctx is cancelled. The lease was found to run, until open.
func (d *dispatcher) send(ctx context.Context, w *shortWait, permit *plaspy.Permit, open time.Time) (at time.Time, ok bool) {
	now := time.Now()
	down := d.parts.Circuit.State().Open
	j, wake, found := d.probed.choose(d, now, down)
	if !found {
		permit.Return()
		return wake, false
	}
	if d.state.stale() { // a reading that began before choose does not know that the device is busy
		permit.Return()
		j.reread = true
		d.putBack(&j)
		return now, false
	}
	// The circuit comes last: while the API is down, Allow counts as a probe.
	if ok, at := d.parts.Circuit.Allow(now); !ok {
		permit.Return()
		d.putBack(&j)
		return at, false
	}
	if down {
		d.probed.add(j.d.id)
	}
	t := &turn{pool: d.pool, job: j, permit: permit, open: open}
	for {
		select {
		case d.jobs <- t:
			return time.Time{}, true
		case <-w.within(ctx, now).Done(): // every worker is busy
			d.alive()
		}
		if now = time.Now(); ctx.Err() != nil {
			permit.Return()
			d.putBack(&j)
			return time.Time{}, false
		}
	}
}

// probed holds the devices that were polled since the API went down. It is safe for
// concurrent use, because polls on demand choose devices as well as the dispatcher.
type probed struct {
	mu      sync.Mutex
	devices map[string]struct{}
}

func (r *probed) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.devices[id] = struct{}{}
}

const maxProbed = 256 // devices that are skipped

// choose takes the device that the schedule chooses now. While the API is down, it skips
// the devices that were probed, as long as others are due: a failed probe is due again at
// once, and the device itself may be the cause.
func (r *probed) choose(d *dispatcher, now time.Time, down bool) (j job, wake time.Time, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !down || len(r.devices) >= maxProbed {
		clear(r.devices)
	}
	var passed []job
	for again := true; again; {
		if j, wake, found = d.fleet.next(now, d.parts.Budget.PollRate()); !found {
			break
		}
		if _, again = r.devices[j.d.id]; again {
			passed = append(passed, j)
		}
	}
	if !found && len(passed) > 0 { // all were probed: a new round
		clear(r.devices)
		j, passed, found = passed[0], passed[1:], true
	}
	for i := range passed {
		d.putBack(&passed[i])
	}
	return j, wake, found
}

// putBack returns a job that no worker took.
func (d *dispatcher) putBack(j *job) {
	if j.suspect {
		d.fleet.suspectEnded()
	}
	d.fleet.release(j.d, time.Now(), decision.Decision{}, ending{reread: j.reread})
	d.fleet.askAgain(j)
}

func (d *dispatcher) alive() {
	if d.reports != nil {
		d.reports()
	}
}
