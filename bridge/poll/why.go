package poll

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"plaspy-bridge/publisher"
)

// keptDecisions is how many of a device's last polls can be told of.
const keptDecisions = 8

// decision is what one poll came to. There are several for each device, so it
// is kept small.
type decision struct {
	at        int64 // Unix milliseconds
	seq       uint64
	detail    string   // an error's text, or empty
	id        [16]byte // of the last event published; it is written in hexadecimal
	published uint32
	result    result
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
	Reason    string     `json:"reason"` // why then, one word
	Decisions []Decision `json:"decisions"`
}

// Decision is what one poll came to.
type Decision struct {
	At        time.Time `json:"at"`
	Result    string    `json:"result"`
	Detail    string    `json:"detail,omitempty"`
	Published int       `json:"published,omitempty"` // events
	ID        string    `json:"id,omitempty"`        // of the last of them
	Sequence  uint64    `json:"sequence,omitempty"`  // its stream sequence
}

// Why tells the last decisions on a device, newest first, and what is planned,
// as JSON; ok is false for a device that is not polled here. It asks nobody.
func (p *Pool) Why(id string) (answer []byte, ok bool) {
	r, ok := p.reason(id)
	if !ok {
		return nil, false
	}
	answer, err := json.Marshal(r)
	return answer, err == nil
}

func (p *Pool) reason(id string) (Reason, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.byID[id]
	if d == nil {
		return Reason{}, false
	}
	e := p.policy.Explain(time.Now(), id)
	r := Reason{DeviceID: id, Plan: e.Line, Reason: e.Reason.String(), Decisions: []Decision{}}
	if !e.Next.IsZero() {
		next := e.Next.UTC().Round(time.Millisecond)
		r.Next = &next
	}
	for i := range min(d.turns, keptDecisions) {
		t := &d.recent[(d.turns-1-i)%keptDecisions]
		r.Decisions = append(r.Decisions, Decision{
			At: t.when().UTC(), Result: t.result.String(), Detail: t.detail, Published: int(t.published), ID: t.eventID(), Sequence: t.seq,
		})
	}
	return r, true
}

// came notes what a turn comes to.
func (d *device) came(r result, err error) {
	d.turn.result = r
	if err != nil {
		d.turn.detail = err.Error()
	}
}

// count notes a published event of the turn.
func (d *device) count(e *publisher.Event) {
	d.turn.published++
	d.turn.seq = e.Seq
	_, _ = hex.Decode(d.turn.id[:], []byte(e.ID)) // the publisher's ids are hexadecimal
}
