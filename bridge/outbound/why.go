package outbound

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"time"
	"unique"

	"plaspy-bridge/publisher"
)

// keptDecisions is how many of a device's last decisions can be told of; polls in
// a row that came to the same count as one.
const keptDecisions = 6

// decision is what one poll came to. There are several for each device, so it
// is kept small.
type decision struct {
	at        int64 // Unix milliseconds
	seq       uint64
	note      unique.Handle[note] // zero: an empty one
	id        [16]byte            // of the last event published; it is written in hexadecimal
	published uint32
	times     uint16 // polls in a row that came to this
	result    result
}

// note is what there is to say of a decision. Most devices have the same to say,
// of which one copy is kept.
type note struct {
	detail string // an error's text, or why it came so
	fields string // names of the fields that changed, one a line
}

// said gives the note.
func (d *decision) said() note {
	if d.note == (unique.Handle[note]{}) {
		return note{}
	}
	return d.note.Value()
}

// result is what a poll came to, as [Pool.Why] tells it.
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
	noResult: "", resultUnchanged: "unchanged", resultChanged: "changed", resultSilent: "unchanged for so long that it counts as silent",
	resultNone: "it has never reported", resultError: "error", resultUnusable: "location not usable", resultPutOff: "put off",
}

// String is the result in words.
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

// Reason is the JSON that [Pool.Why] gives.
type Reason struct {
	DeviceID  string     `json:"deviceId"`
	Plan      string     `json:"plan"` // one line for a person
	Next      *time.Time `json:"next,omitempty"`
	Reason    string     `json:"reason"`         // why then, one word
	Held      string     `json:"held,omitempty"` // what keeps its polls back now, for a person
	Decisions []Decision `json:"decisions"`
}

// Decision is what one poll came to, or several in a row.
type Decision struct {
	At        time.Time `json:"at"`
	Result    string    `json:"result"`
	Detail    string    `json:"detail,omitempty"`
	Fields    []string  `json:"fields,omitempty"`    // names of those that changed, at most 8, then "…"
	Published int       `json:"published,omitempty"` // events
	ID        string    `json:"id,omitempty"`        // of the last of them
	Sequence  uint64    `json:"sequence,omitempty"`  // its stream sequence
	Times     int       `json:"times,omitempty"`     // polls in a row that came to this, the last of them at At; absent: one
}

// Reasons that are not the schedule's.
const (
	reasonQuota     = "quota"
	reasonElsewhere = "elsewhere"
	reasonUnlisted  = "unlisted"
)

// Why tells the last decisions on a device, newest first, and what is planned,
// as JSON; ok is false for a device that the bridge does not know. It asks
// nobody.
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
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id] != nil
}

func (p *Pool) reason(id string) (Reason, bool) {
	now := time.Now()
	held := p.holds(now) // not under the mutex: it asks others
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.devices[publisher.Encode(id)]
	if d == nil {
		return Reason{}, false
	}
	r := Reason{DeviceID: id, Decisions: d.decisions()}
	if !d.active {
		r.Plan, r.Reason = "not polled: it is not in the API's list, or the settings leave it out", reasonUnlisted
		if d.listed {
			r.Plan, r.Reason = "another replica polls it", reasonElsewhere
		}
		return r, true
	}
	e := p.policy.Explain(now, id)
	r.Plan, r.Reason, r.Held = e.Line, e.Reason.String(), held
	if !d.busy { // else its quota is somebody's
		if at := p.opts.Quota.Next(now, &d.day); !at.IsZero() {
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

// overdue is how late a poll is before somebody asks what keeps it.
const overdue = 2 * time.Second

// holds tells what keeps all polls back now, or "".
func (p *Pool) holds(now time.Time) string {
	switch {
	case !p.stream.Connected():
		return "NATS is away, or has not the streams"
	case p.stale():
		return "the state is being read from the stream"
	case p.opts.Live != nil && !p.opts.Live():
		return "this replica has no part in the work now"
	case p.opts.Token != nil && p.opts.Token(past) != nil:
		return "there is no token"
	}
	if c := p.circuit.State(); c.Open {
		return "the API is down, next probe " + c.NextProbe.UTC().Format(time.TimeOnly)
	}
	return ""
}

// decisions runs under the mutex.
func (d *device) decisions() []Decision {
	list := make([]Decision, 0, min(d.turns, keptDecisions))
	for i := range min(d.turns, keptDecisions) {
		t := &d.recent[(d.turns-1-i)%keptDecisions]
		n := t.said()
		e := Decision{
			At: t.when().UTC(), Result: t.result.String(), Detail: n.detail,
			Published: int(t.published), ID: t.eventID(), Sequence: t.seq,
		}
		if t.times > 1 {
			e.Times = int(t.times)
		}
		if n.fields != "" {
			e.Fields = strings.Split(n.fields, "\n")
		}
		list = append(list, e)
	}
	return list
}

// keep puts what the turn came to among the decisions. Polls in a row that come
// to the same are one of them, so that they do not push out what happened before.
// It runs under the mutex.
func (d *device) keep(now time.Time) {
	if d.turn.result == noResult {
		return
	}
	last := &d.recent[(d.turns+keptDecisions-1)%keptDecisions]
	if last.result == d.turn.result && last.note == d.turn.note && last.published == 0 && d.turn.published == 0 {
		d.turn.times = last.times
	} else {
		last = &d.recent[d.turns%keptDecisions]
		d.turns++
	}
	d.turn.at = now.UnixMilli()
	if d.turn.times < math.MaxUint16 {
		d.turn.times++
	}
	*last = d.turn
	d.turn = decision{}
}

// came notes what a turn comes to.
func (d *device) came(r result, err error) {
	d.turn.result = r
	if err != nil {
		d.say(err.Error())
	}
}

// say notes why a turn comes to what it does.
func (d *device) say(detail string) {
	n := d.turn.said()
	n.detail = detail
	d.turn.note = unique.Make(n)
}

// differs notes the fields in which a fix is another one than the stream's last.
func (p *Pool) differs(d *device, f *fix) {
	if !d.have || !d.fields.known() {
		d.say("its first fix")
		return
	}
	n := d.turn.said()
	n.fields = d.fields.changed(f.fields, p.opts.IgnoreFields)
	d.turn.note = unique.Make(n)
}

// count notes a published event of the turn.
func (d *device) count(e *publisher.Event) {
	d.turn.published++
	d.turn.seq = e.Seq
	_, _ = hex.Decode(d.turn.id[:], []byte(e.ID)) // the publisher's ids are hexadecimal
}
