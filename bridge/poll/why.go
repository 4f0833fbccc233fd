package poll

import (
	"encoding/json"
	"time"

	"plaspy-bridge/publisher"
)

// keptDecisions is how many of a device's last polls can be told of.
const keptDecisions = 8

// decision is what one poll came to.
type decision struct {
	at        time.Time
	result    string // constant text
	detail    string // an error's text, or empty
	published int
	id        string // of the last event published
	seq       uint64
}

// Results of a poll, as [Pool.Why] tells them.
const (
	resultUnchanged = "unchanged"
	resultChanged   = "changed"
	resultSilent    = "unchanged for so long that it counts as silent"
	resultNone      = "it has never reported"
	resultError     = "error"
	resultUnusable  = "location not usable"
	resultPutOff    = "put off"
)

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
		t := d.recent[(d.turns-1-i)%keptDecisions]
		r.Decisions = append(r.Decisions, Decision{
			At: t.at.UTC(), Result: t.result, Detail: t.detail, Published: t.published, ID: t.id, Sequence: t.seq,
		})
	}
	return r, true
}

// came notes what a turn comes to.
func (d *device) came(result string, err error) {
	d.turn.result = result
	if err != nil {
		d.turn.detail = err.Error()
	}
}

// count notes a published event of the turn.
func (d *device) count(e *publisher.Event) {
	d.turn.published++
	d.turn.id, d.turn.seq = e.ID, e.Seq
}
