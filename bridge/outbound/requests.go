package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
)

// Reason is the JSON that [Pool.Why] returns.
type Reason struct {
	DeviceID  string           `json:"deviceId"`
	Plan      string           `json:"plan"` // one line for a person
	Next      *time.Time       `json:"next,omitempty"`
	Reason    string           `json:"reason"`            // why then, one word
	Held      string           `json:"held,omitempty"`    // why its polls are held back now, for a person
	Control   any              `json:"control,omitempty"` // the entries of live control in force for it
	Decisions []decision.Shown `json:"decisions"`
}

// Reasons that are not the schedule's.
const (
	reasonQuota     = "quota"
	reasonElsewhere = "elsewhere"
	reasonUnlisted  = "unlisted"
	reasonForgotten = "forgotten"
	reasonPaused    = "paused"
)

// Polled reports whether the replica that gave the answer polls the device, or would if
// live control had not paused it.
func (r *Reason) Polled() bool {
	return r.Reason != reasonElsewhere && r.Reason != reasonUnlisted && r.Reason != reasonForgotten
}

// Why returns the last decisions on a device, newest first, and its plan, as JSON.
// ok is false for a device that the bridge does not know. It makes no request.
func (p *Pool) Why(id string) (answer []byte, ok bool) {
	r, ok := p.reason(id)
	if !ok {
		return nil, false
	}
	answer, err := json.Marshal(r)
	return answer, err == nil
}

// Polls reports whether this replica polls a device.
func (p *Pool) Polls(id string) bool { return p.fleet.polls(id) }

func (p *Pool) reason(id string) (Reason, bool) {
	held := p.dispatcher.held() // before the fleet's mutex: it asks other parts
	return p.fleet.reason(time.Now(), id, held, p.parts.Forgotten, p.opts.Quota)
}

// polls reports whether a device is in the schedule.
func (f *fleet) polls(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.devices.polled(id) != nil
}

// reason returns the decisions and the plan of a device. held is why all polls are held
// back.
func (f *fleet) reason(now time.Time, id, held string, forgotten func(token string) bool, limit *quota.Quota) (Reason, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.devices[publisher.Encode(id)]
	if d == nil {
		return Reason{}, false
	}
	r := Reason{DeviceID: id, Decisions: d.decisions.List(), Control: f.table.terms(d).Control}
	if !d.active {
		r.Plan, r.Reason = "not polled: it is not in the API's list, or the settings or live control leave it out", reasonUnlisted
		switch {
		case d.listed && forgotten(d.token()):
			r.Plan, r.Reason = "not polled: it is forgotten; plaspy-bridge forget --undo lets it be published again", reasonForgotten
		case d.listed:
			r.Plan, r.Reason = "another replica polls it", reasonElsewhere
		}
		return r, true
	}
	if d.terms.paused {
		r.Plan, r.Reason = "paused by live control", reasonPaused
		return r, true
	}
	e := f.table.policy.Explain(now, id)
	r.Plan, r.Reason, r.Held = e.Line, e.Reason.String(), held
	if reason := f.table.impossible(); reason != "" && d.terms.Interval > 0 {
		r.Plan += "; " + reason
	}
	if !d.busy { // else its quota belongs to the turn
		if at := limit.Next(now, d.day); !at.IsZero() {
			e.Next, r.Reason = at, reasonQuota
			r.Plan += "; its daily quota of results allows no poll before " + at.UTC().Format(time.TimeOnly)
		}
	}
	if !e.Next.IsZero() {
		next := e.Next.UTC().Round(time.Millisecond)
		r.Next = &next
		if r.Held == "" && !d.busy && now.Sub(next) > overdue {
			r.Held = "it waits for the request budget, or for a worker"
		}
	}
	return r, true
}

// overdue is how late a poll is before a reason for the delay is given.
const overdue = 2 * time.Second

// DeviceStatus is the state of one device at one moment, for display.
type DeviceStatus struct {
	ID   string
	Name string // as the API's list has it
	// Gone: it is not polled here any more. Only the id is set.
	Gone bool
	// Busy: it is being polled, or its events are not stored yet. Only id and name
	// are set. When that is over it has changed.
	Busy bool

	Fix      bool      // the bridge knows a fix, to which the fields up to Alerts belong
	FixTime  time.Time // by the device's clock
	Seen     time.Time // when the bridge first saw it, by its own clock
	Lat, Lon float32   // degrees, WGS 84
	Speed    float32   // km/h, or the account's unit; NaN: absent
	Alerts   []string  // raised now, the bridge's own silent among them; never changed in place

	Polled   time.Time // when the last poll was over; zero means not yet
	Result   string    // of that poll, for people
	Detail   string    // its error, or empty
	Failures int       // polls in a row that failed
	Next     time.Time // when the next poll is due; zero means unknown
	Reason   string    // why then, one word
}

// statusChunk is the number of devices that are read while the fleet's mutex is held:
// some hundred microseconds.
const statusChunk = 64

// Changed calls f with each device that has changed, or was polled, since the
// last call, and the first time with every device. There may be only one caller.
// f runs on its goroutine and may block. A device that changes again meanwhile is
// among those of the next call.
func (p *Pool) Changed(f func(DeviceStatus)) { p.fleet.statuses(f) }

func (f *fleet) statuses(each func(DeviceStatus)) {
	list := f.takeChanged()
	seen := make([]DeviceStatus, 0, min(statusChunk, len(list)))
	for part := range slices.Chunk(list, statusChunk) {
		seen = seen[:0]
		now := time.Now()
		f.mu.Lock()
		for _, d := range part {
			d.marked = false
			seen = append(seen, d.status(now, f.table.policy))
		}
		f.mu.Unlock()
		for _, s := range seen {
			each(s)
		}
	}
}

// takeChanged returns the devices that have changed. Until its first call none is
// remembered.
func (f *fleet) takeChanged() []*device {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.changes.watched {
		f.changes.watched = true
		for _, d := range f.devices.allPolled(f.table.policy.Len()) {
			f.changes.mark(d)
		}
	}
	list := f.changes.list
	f.changes.list = nil
	return list
}

// status returns the state of a device. The fleet's mutex is held.
func (d *device) status(now time.Time, policy *schedule.Schedule) DeviceStatus {
	s := DeviceStatus{ID: d.id, Name: d.name, Gone: !d.active, Busy: d.active && d.busy}
	if s.Gone || s.Busy {
		return s
	}
	if t := &d.track; t.Known {
		s.Fix, s.FixTime, s.Seen = true, t.Last.Time.Time(), t.SeenAt
		s.Lat, s.Lon, s.Speed = t.Last.Lat, t.Last.Lon, t.Last.Speed
		s.Alerts = t.Raised // never changed in place
		if t.Silent {
			s.Alerts = append(slices.Clip(s.Alerts), track.SilentAlert)
		}
	}
	if last, ok := d.decisions.Last(); ok {
		s.Polled, s.Result, s.Detail = last.When(), last.Result.String(), last.Detail()
	}
	s.Failures = int(d.failures)
	next, why := policy.Due(now, d.id)
	s.Next, s.Reason = next, why.String()
	if d.terms.paused {
		s.Reason = reasonPaused
	}
	return s
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
	held := p.dispatcher.held()
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
	p.dispatcher.send(ctx, &w, permit, time.Time{})
	nudge(p.dispatcher.wake)
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
	f.table.policy.Now(now, id)
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
	f.table.policy.Soon(time.Now(), j.d.id)
}

// callers wait for the next turn of a device, by its id.
type callers map[string][]chan pollResult

// take returns the callers that wait for the turn that begins now.
func (c callers) take(id string) []chan pollResult {
	list := c[id]
	delete(c, id)
	return list
}
