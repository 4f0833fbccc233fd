package outbound

import (
	"encoding/json"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/track"
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
func (p *Pool) Polls(id string) bool {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return polledLocked(p.fleet, id) != nil
}

func (p *Pool) reason(id string) (Reason, bool) {
	now := time.Now()
	held := p.held() // before the mutex: it asks other parts
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	d := p.fleet.devices[publisher.Encode(id)]
	if d == nil {
		return Reason{}, false
	}
	r := Reason{DeviceID: id, Decisions: d.decisions.List(), Control: p.fleet.termsLocked(d).Control}
	if !d.active {
		r.Plan, r.Reason = "not polled: it is not in the API's list, or the settings or live control leave it out", reasonUnlisted
		switch {
		case d.listed && p.parts.Forgotten(d.token()):
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
	e := p.fleet.policy.Explain(now, id)
	r.Plan, r.Reason, r.Held = e.Line, e.Reason.String(), held
	if reason := p.fleet.totals.impossible(p.fleet.pace.rate); reason != "" && d.terms.Interval > 0 {
		r.Plan += "; " + reason
	}
	if !d.busy { // else its quota belongs to the turn
		if at := p.opts.Quota.Next(now, d.day); !at.IsZero() {
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

// held returns why all polls are held back now, or "".
func (p *Pool) held() string {
	switch {
	case !p.parts.Connected():
		return "NATS is not connected, or its streams are missing"
	case !p.parts.Assigned():
		return "this replica has no devices assigned yet"
	case p.state.stale():
		return "the state is being read from the stream"
	case !p.parts.Owner.Live():
		return "this replica does not hold its lease"
	case p.opts.Token != nil && p.opts.Token(cancelled) != nil:
		return "there is no token"
	}
	if c := p.parts.Circuit.State(); c.Open {
		return "the API is down, next probe " + c.NextProbe.UTC().Format(time.TimeOnly)
	}
	return ""
}

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
			seen = append(seen, f.statusLocked(now, d))
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
		for _, d := range allPolledLocked(f) {
			f.markLocked(d)
		}
	}
	list := f.changes.list
	f.changes.list = nil
	return list
}

// markLocked notes that a device has changed.
func (f *fleet) markLocked(d *device) {
	if f.changes.watched && !d.marked {
		d.marked = true
		f.changes.list = append(f.changes.list, d)
	}
}

func (f *fleet) statusLocked(now time.Time, d *device) DeviceStatus {
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
	next, why := f.policy.Due(now, d.id)
	s.Next, s.Reason = next, why.String()
	if d.terms.paused {
		s.Reason = reasonPaused
	}
	return s
}
