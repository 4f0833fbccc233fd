package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/tick"
	"plaspy-bridge/publisher"
)

// dispatch hands devices to workers until ctx is cancelled. Each iteration asks gate
// whether polls may go out, and hand to send one.
func (p *Pool) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	var r rest
	var w shortWait
	defer w.end()
	var open time.Time // the gate's answer holds until then
	for ctx.Err() == nil {
		p.alive()
		now, at := time.Now(), time.Time{}
		ok := now.Before(open)
		if !ok {
			at, ok = p.gate(ctx)
			open = now.Add(gateHolds)
		}
		if ok {
			at, ok = p.hand(ctx, now, open, &w)
		}
		if ok {
			r.polls++
			tick.Awake()
			continue
		}
		open = time.Time{}
		r.adapt()
		sleep(ctx, timer, p.wake, at, r.length)
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
func (p *Pool) gate(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if p.state.stale() || !p.parts.Connected() || !p.parts.Owner.Live() {
		return now.Add(100 * time.Millisecond), false
	}
	if p.opts.Token != nil && p.opts.Token(cancelled) != nil {
		short, cancel := context.WithTimeout(ctx, longestSleep)
		defer cancel()
		if p.opts.Token(short) != nil {
			return now, false
		}
	}
	if c := p.parts.Circuit.State(); c.Open && now.Before(c.NextProbe) {
		return c.NextProbe, false
	}
	return time.Time{}, true
}

// hand waits for the budget, then sends the device that the schedule chooses to a
// worker. ok is false if nothing is due before at, or if the short context ends first.
func (p *Pool) hand(ctx context.Context, now, open time.Time, w *shortWait) (at time.Time, ok bool) {
	permit, err := p.parts.Budget.Wait(w.within(ctx, now), plaspy.Poll)
	if err != nil {
		return time.Now(), false
	}
	return p.send(ctx, w, permit, open)
}

// send uses a permit for the device that the schedule chooses now, and blocks until a
// worker takes it or ctx is cancelled. The lease was found to run, until open.
func (p *Pool) send(ctx context.Context, w *shortWait, permit *plaspy.Permit, open time.Time) (at time.Time, ok bool) {
	now := time.Now()
	down := p.parts.Circuit.State().Open
	j, wake, found := p.probed.choose(p, now, down)
	if !found {
		permit.Return()
		return wake, false
	}
	if p.state.stale() { // a reading that began before choose does not know that the device is busy
		permit.Return()
		j.reread = true
		p.putBack(&j)
		return now, false
	}
	// The circuit comes last: while the API is down, Allow counts as a probe.
	if ok, at := p.parts.Circuit.Allow(now); !ok {
		permit.Return()
		p.putBack(&j)
		return at, false
	}
	if down {
		p.probed.add(j.d.id)
	}
	t := &turn{pool: p, job: j, permit: permit, open: open}
	for {
		select {
		case p.jobs <- t:
			return time.Time{}, true
		case <-w.within(ctx, now).Done(): // every worker is busy
			p.alive()
		}
		if now = time.Now(); ctx.Err() != nil {
			permit.Return()
			p.putBack(&j)
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
func (r *probed) choose(p *Pool, now time.Time, down bool) (j job, wake time.Time, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !down || len(r.devices) >= maxProbed {
		clear(r.devices)
	}
	var passed []job
	for again := true; again; {
		if j, wake, found = p.fleet.next(now, p.parts.Budget.PollRate()); !found {
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
		p.putBack(&passed[i])
	}
	return j, wake, found
}

// putBack returns a job that no worker took.
func (p *Pool) putBack(j *job) {
	if j.suspect {
		p.fleet.suspectEnded()
	}
	p.fleet.release(j.d, time.Now(), decision.Decision{}, ending{reread: j.reread})
	p.fleet.askAgain(j)
}

func (p *Pool) alive() {
	if p.opts.Alive != nil {
		p.opts.Alive()
	}
}

// Errors of [Pool.Poll]. The others are the API's and the context's.
var (
	ErrUnknown   = errors.New("the bridge does not know this device")
	ErrElsewhere = errors.New("another replica polls this device")
	ErrPaused    = errors.New("live control has paused this device")
	ErrForgotten = errors.New("this device is forgotten")
	// ErrHeld wraps the reason why nothing is polled now.
	ErrHeld = errors.New("polls are held back")
)

// heldError is the reason why nothing is polled now.
type heldError string

// Error returns the reason.
func (e heldError) Error() string { return string(e) }

// Is reports whether target is [ErrHeld].
func (heldError) Is(target error) bool { return target == ErrHeld }

// PollAnswer is the JSON that [Pool.Poll] returns.
type PollAnswer struct {
	DeviceID string `json:"deviceId"`
	decision.Shown
}

// pollResult is the result of a turn for a caller of [Pool.Poll].
type pollResult struct {
	decision decision.Decision
	err      error // why the API gave no answer
}

// Poll polls a device before all others and returns the result of that poll as
// JSON. It blocks until the events are stored. The request counts as a query in the
// budget.
func (p *Pool) Poll(ctx context.Context, id string) ([]byte, error) {
	held := p.held()
	if held == "" && !p.fleet.size.filled.Load() { // the list may be read, and its events on their way
		held = "the device list was not read yet"
	}
	if held != "" {
		return nil, heldError(held)
	}
	switch err := p.fleet.pollable(id); {
	case errors.Is(err, ErrElsewhere) && p.parts.Forgotten(publisher.Encode(id)):
		return nil, ErrForgotten
	case err != nil:
		return nil, err
	}
	permit, err := p.parts.Budget.Wait(ctx, plaspy.Query)
	if err != nil {
		return nil, err
	}
	result, err := p.fleet.ask(time.Now(), id)
	if err != nil {
		permit.Return()
		return nil, err
	}
	if !p.sendAsked(ctx, permit) {
		permit.Return()
		return nil, heldError("the bridge is stopping")
	}
	select {
	case r := <-result:
		if r.err != nil {
			return nil, r.err
		}
		return json.Marshal(PollAnswer{id, r.decision.Shown()})
	case <-ctx.Done():
		p.fleet.forgetAsked(id, result)
		return nil, context.Cause(ctx)
	}
}

// sendAsked uses a permit for the device that the schedule chooses now. If that is
// another one, whose state is in doubt, the asked one follows with the next permit.
// It returns false if Run ends.
func (p *Pool) sendAsked(ctx context.Context, permit *plaspy.Permit) bool {
	if !p.life.enter() {
		return false
	}
	defer p.life.senders.Done()
	var w shortWait
	defer w.end()
	p.send(ctx, &w, permit, time.Time{})
	nudge(p.wake)
	return true
}

// answerAsked gives the result of a turn to the callers of Poll.
func (t *turn) answerAsked(now time.Time) {
	if len(t.job.callers) == 0 {
		return
	}
	r := pollResult{t.result, t.err}
	r.decision.SetTime(now)
	if r.err == nil && r.decision.Result == decision.None {
		r.err = heldError("the state is being read from the stream")
	}
	for _, c := range t.job.callers {
		c <- r // it has room
	}
}

// pollable returns the reason why a device cannot be polled here, or nil.
func (f *fleet) pollable(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.devices[publisher.Encode(id)]
	switch {
	case d == nil || !d.listed:
		return ErrUnknown
	case !d.active:
		return ErrElsewhere
	case d.terms.paused:
		return ErrPaused
	}
	return nil
}

// ask makes a device due before all others. The channel receives the result of the
// device's next turn.
func (f *fleet) ask(now time.Time, id string) (chan pollResult, error) {
	if err := f.pollable(id); err != nil {
		return nil, err
	}
	result := make(chan pollResult, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = make(callers)
	}
	f.waiting[id] = append(f.waiting[id], result)
	f.policy.Now(now, id)
	return result, nil
}

// forgetAsked removes a caller that does not wait any more.
func (f *fleet) forgetAsked(id string, result chan pollResult) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.waiting[id]
	for i, c := range list {
		if c == result {
			f.waiting[id] = append(list[:i:i], list[i+1:]...)
		}
	}
	if len(f.waiting[id]) == 0 {
		delete(f.waiting, id)
	}
}

// askAgain puts back the callers of a job that no worker took.
func (f *fleet) askAgain(j *job) {
	if len(j.callers) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[j.d.id] = append(j.callers, f.waiting[j.d.id]...)
	f.policy.Soon(time.Now(), j.d.id)
}

// callers wait for the next turn of a device, by its id.
type callers map[string][]chan pollResult

// take returns the callers that wait for the turn that begins now.
func (c callers) take(id string) []chan pollResult {
	list := c[id]
	delete(c, id)
	return list
}
