package outbound

import (
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unique"

	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/publisher"
)

// keptDecisions is the number of decisions that are kept of a device. Polls in a
// row with the same result count as one.
const keptDecisions = 5

// decision is the result of one turn.
type decision struct {
	at        int64 // Unix milliseconds
	seq       uint64
	text      unique.Handle[note] // zero: an empty one
	id        [16]byte            // of the last event published; its text is hexadecimal
	published uint32
	times     uint16 // polls in a row with this result
	result    result
}

// note is the text of a decision. Most devices share their notes, of which one
// copy is kept.
type note struct {
	detail string // an error, or a reason
	fields string // names of the fields that changed, one a line
}

func (d *decision) noted() note {
	if d.text == (unique.Handle[note]{}) {
		return note{}
	}
	return d.text.Value()
}

// note sets the result of the turn, and its error as the detail.
func (d *decision) note(r result, err error) {
	d.result = r
	if err != nil {
		d.noteDetail(err.Error())
	}
}

func (d *decision) noteDetail(detail string) {
	n := d.noted()
	n.detail = detail
	d.text = unique.Make(n)
}

// noteFields notes the fields in which a fix differs from the stream's last
// location.
func (d *decision) noteFields(t *track.Track, f *track.Fix, ignored []string) {
	if !t.Known || !t.Last.Fields.Known() {
		d.noteDetail("its first fix")
		return
	}
	n := d.noted()
	n.fields = t.Last.Fields.Changed(f.Fields, ignored)
	d.text = unique.Make(n)
}

// noteEvent notes an event that was published.
func (d *decision) noteEvent(e *publisher.Event) {
	d.published++
	d.seq = e.Seq
	_, _ = hex.Decode(d.id[:], []byte(e.ID)) // the publisher's ids are hexadecimal
}

// attrs returns the attributes of the decision's log line. began is zero if the API was
// not asked.
func (d *decision) attrs(deviceID string, began, now time.Time) []slog.Attr {
	n := d.noted()
	out := []slog.Attr{slog.String("device_id", deviceID), slog.String("result", d.result.String())}
	if n.detail != "" {
		out = append(out, slog.String("reason", n.detail))
	}
	if n.fields != "" {
		out = append(out, slog.String("fields", strings.ReplaceAll(n.fields, "\n", ",")))
	}
	if d.published > 0 {
		out = append(out, slog.Uint64("count", uint64(d.published)), slog.Uint64("seq", d.seq), slog.String("msg_id", d.eventID()))
	}
	if !began.IsZero() {
		out = append(out, slog.Duration("elapsed", now.Sub(began)))
	}
	return out
}

// kept is a decision in a smaller form, because there are several for each device.
type kept struct {
	seq  uint64
	text unique.Handle[note]
	id   [16]byte
	// rest holds the time in the upper 44 bits, the result in 4, and in 16 the number of
	// events published, or of polls in a row if there was none.
	rest uint64
}

func (d *decision) pack() kept {
	count := uint32(d.times)
	if d.seq != 0 {
		count = min(d.published, math.MaxUint16)
	}
	return kept{seq: d.seq, text: d.text, id: d.id, rest: uint64(d.at)<<20 | uint64(d.result)<<16 | uint64(count)}
}

func (k *kept) unpack() decision {
	d := decision{at: int64(k.rest >> 20), seq: k.seq, text: k.text, id: k.id, result: result(k.rest >> 16 & 0xf), times: 1}
	if k.seq != 0 {
		d.published = uint32(k.rest & math.MaxUint16)
	} else {
		d.times = uint16(k.rest & math.MaxUint16)
	}
	return d
}

// decisions are the last decisions on a device. The fleet's mutex guards them.
type decisions struct {
	recent [keptDecisions]kept
	turns  int
}

// add adds the result of a turn. It replaces the last decision if that is the same,
// so that polls of no interest do not displace what happened before.
func (l *decisions) add(d decision, now time.Time) {
	if d.result == noResult {
		return
	}
	d.times = 0
	if last, ok := l.last(); ok && last.result == d.result && last.text == d.text && last.published == 0 && d.published == 0 {
		d.times = last.times
		l.turns--
	}
	d.at = now.UnixMilli()
	if d.times < math.MaxUint16 {
		d.times++
	}
	l.recent[l.turns%keptDecisions] = d.pack()
	l.turns++
}

// last returns the newest decision; ok is false if there is none.
func (l *decisions) last() (d decision, ok bool) {
	if l.turns == 0 {
		return d, false
	}
	return l.recent[(l.turns-1)%keptDecisions].unpack(), true
}

// result is the result of a turn, as [Pool.Why] reports it.
type result uint8

const (
	noResult result = iota
	resultUnchanged
	resultChanged
	resultSilent
	resultNone
	resultError
	resultUnusable
	resultPutOff
)

var resultTexts = [...]string{
	noResult: "", resultUnchanged: "unchanged", resultChanged: "changed", resultSilent: "silent",
	resultNone: "never_reported", resultError: "error", resultUnusable: "unusable", resultPutOff: "deferred",
}

// String is the result as one word, as in the schema's description.
func (r result) String() string { return resultTexts[r] }

// when is the time of the decision.
func (d *decision) when() time.Time { return time.UnixMilli(d.at) }

// eventID is the id of the last event published, or empty.
func (d *decision) eventID() string {
	if d.published == 0 {
		return ""
	}
	return hex.EncodeToString(d.id[:])
}

// Reason is the JSON that [Pool.Why] returns.
type Reason struct {
	DeviceID  string     `json:"deviceId"`
	Plan      string     `json:"plan"` // one line for a person
	Next      *time.Time `json:"next,omitempty"`
	Reason    string     `json:"reason"`            // why then, one word
	Held      string     `json:"held,omitempty"`    // why its polls are held back now, for a person
	Control   any        `json:"control,omitempty"` // the entries of live control in force for it
	Decisions []Decision `json:"decisions"`
}

// Decision is the result of one poll, or of several in a row.
type Decision struct {
	At        time.Time `json:"at"`
	Result    string    `json:"result"`
	Detail    string    `json:"detail,omitempty"`
	Fields    []string  `json:"fields,omitempty"`    // names of those that changed, at most 8, then "…"
	Published int       `json:"published,omitempty"` // number of events
	ID        string    `json:"id,omitempty"`        // of the last event
	Sequence  uint64    `json:"sequence,omitempty"`  // of the last event
	Times     int       `json:"times,omitempty"`     // polls in a row with this result, the last of them at At; absent means one
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
	r := Reason{DeviceID: id, Decisions: d.decisions.list(), Control: p.fleet.termsLocked(d).Control}
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

// list returns the decisions, newest first.
func (l *decisions) list() []Decision {
	list := make([]Decision, 0, min(l.turns, keptDecisions))
	for i := range min(l.turns, keptDecisions) {
		d := l.recent[(l.turns-1-i)%keptDecisions].unpack()
		list = append(list, d.shown())
	}
	return list
}

// shown returns the decision as it is shown.
func (d *decision) shown() Decision {
	n := d.noted()
	e := Decision{
		At: d.when().UTC(), Result: d.result.String(), Detail: n.detail,
		Published: int(d.published), ID: d.eventID(), Sequence: d.seq,
	}
	if d.times > 1 {
		e.Times = int(d.times)
	}
	if n.fields != "" {
		e.Fields = strings.Split(n.fields, "\n")
	}
	return e
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
	if last, ok := d.decisions.last(); ok {
		s.Polled, s.Result, s.Detail = last.when(), last.result.String(), last.noted().detail
	}
	s.Failures = int(d.failures)
	next, why := f.policy.Due(now, d.id)
	s.Next, s.Reason = next, why.String()
	if d.terms.paused {
		s.Reason = reasonPaused
	}
	return s
}
