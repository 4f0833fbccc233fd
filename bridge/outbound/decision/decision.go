package decision

import (
	"encoding/hex"
	"log/slog"
	"math"
	"strings"
	"time"
	"unique"

	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/publisher"
)

// mostKept is the number of decisions that are kept of a device. Polls in a
// row with the same result count as one.
const mostKept = 5

// Decision is the result of one turn.
type Decision struct {
	at    int64 // Unix milliseconds
	seq   uint64
	text  unique.Handle[note] // zero: an empty one
	id    [16]byte            // of the last event published; its text is hexadecimal
	times uint16              // polls in a row with this result

	Result    Result
	Published uint32 // number of events
}

// note is the text of a decision. Most devices share their notes, of which one
// copy is kept.
type note struct {
	detail string // an error, or a reason
	fields string // names of the fields that changed, one a line
}

func (d *Decision) noted() note {
	if d.text == (unique.Handle[note]{}) {
		return note{}
	}
	return d.text.Value()
}

// Note sets the result of the turn, and its error as the detail.
func (d *Decision) Note(r Result, err error) {
	d.Result = r
	if err != nil {
		d.NoteDetail(err.Error())
	}
}

// NoteDetail sets the detail.
func (d *Decision) NoteDetail(detail string) {
	n := d.noted()
	n.detail = detail
	d.text = unique.Make(n)
}

// NoteFields notes the fields in which a fix differs from the stream's last
// location.
func (d *Decision) NoteFields(t *track.Track, f *track.Fix, ignored []string) {
	if !t.Known || !t.Last.Fields.Known() {
		d.NoteDetail("its first fix")
		return
	}
	n := d.noted()
	n.fields = t.Last.Fields.Changed(f.Fields, ignored)
	d.text = unique.Make(n)
}

// NoteEvent notes an event that was published.
func (d *Decision) NoteEvent(e *publisher.Event) {
	d.Published++
	d.seq = e.Seq
	_, _ = hex.Decode(d.id[:], []byte(e.ID)) // the publisher's ids are hexadecimal
}

// Attrs returns the attributes of the decision's log line. began is zero if the API was
// not asked.
func (d *Decision) Attrs(deviceID string, began, now time.Time) []slog.Attr {
	n := d.noted()
	out := []slog.Attr{slog.String("device_id", deviceID), slog.String("result", d.Result.String())}
	if n.detail != "" {
		out = append(out, slog.String("reason", n.detail))
	}
	if n.fields != "" {
		out = append(out, slog.String("fields", strings.ReplaceAll(n.fields, "\n", ",")))
	}
	if d.Published > 0 {
		out = append(out, slog.Uint64("count", uint64(d.Published)), slog.Uint64("seq", d.seq), slog.String("msg_id", d.eventID()))
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

func (d *Decision) pack() kept {
	count := uint32(d.times)
	if d.seq != 0 {
		count = min(d.Published, math.MaxUint16)
	}
	return kept{seq: d.seq, text: d.text, id: d.id, rest: uint64(d.at)<<20 | uint64(d.Result)<<16 | uint64(count)}
}

func (k *kept) unpack() Decision {
	d := Decision{at: int64(k.rest >> 20), seq: k.seq, text: k.text, id: k.id, Result: Result(k.rest >> 16 & 0xf), times: 1}
	if k.seq != 0 {
		d.Published = uint32(k.rest & math.MaxUint16)
	} else {
		d.times = uint16(k.rest & math.MaxUint16)
	}
	return d
}

// Log holds the last decisions on a device.
type Log struct {
	recent [mostKept]kept
	turns  int
}

// Add adds the result of a turn. It replaces the last decision if that is the same,
// so that polls of no interest do not displace earlier news.
func (l *Log) Add(d Decision, now time.Time) {
	if d.Result == None {
		return
	}
	d.times = 0
	if last, ok := l.Last(); ok && last.Result == d.Result && last.text == d.text && last.Published == 0 && d.Published == 0 {
		d.times = last.times
		l.turns--
	}
	d.at = now.UnixMilli()
	if d.times < math.MaxUint16 {
		d.times++
	}
	l.recent[l.turns%mostKept] = d.pack()
	l.turns++
}

// Last returns the newest decision; ok is false if there is none.
func (l *Log) Last() (d Decision, ok bool) {
	if l.turns == 0 {
		return d, false
	}
	return l.recent[(l.turns-1)%mostKept].unpack(), true
}

// Result is the result of a turn.
type Result uint8

// The results.
const (
	None      Result = iota // nothing to report
	Unchanged               // the last known location
	Changed                 // another location
	Silent                  // the last known one for so long that the device counts as silent
	Never                   // the device has never reported
	Failed                  // the API gave no answer
	Unusable                // the location cannot be published
	PutOff                  // the poll was put off
)

var resultTexts = [...]string{
	None: "", Unchanged: "unchanged", Changed: "changed", Silent: "silent",
	Never: "never_reported", Failed: "error", Unusable: "unusable", PutOff: "deferred",
}

// String is the result as one word, as in the schema's description.
func (r Result) String() string { return resultTexts[r] }

// Detail is an error, or a reason, or empty.
func (d *Decision) Detail() string { return d.noted().detail }

// SetTime sets the time of the decision. [Log.Add] does so for those of a log.
func (d *Decision) SetTime(now time.Time) { d.at = now.UnixMilli() }

// When is the time of the decision.
func (d *Decision) When() time.Time { return time.UnixMilli(d.at) }

// eventID is the id of the last event published, or empty.
func (d *Decision) eventID() string {
	if d.Published == 0 {
		return ""
	}
	return hex.EncodeToString(d.id[:])
}

// Shown is a decision as JSON: the result of one poll, or of several in a row.
type Shown struct {
	At        time.Time `json:"at"`
	Result    string    `json:"result"`
	Detail    string    `json:"detail,omitempty"`
	Fields    []string  `json:"fields,omitempty"`    // names of those that changed, at most 8, then "…"
	Published int       `json:"published,omitempty"` // number of events
	ID        string    `json:"id,omitempty"`        // of the last event
	Sequence  uint64    `json:"sequence,omitempty"`  // of the last event
	Times     int       `json:"times,omitempty"`     // polls in a row with this result, the last of them at At; absent means one
}

// List returns the decisions, newest first.
func (l *Log) List() []Shown {
	list := make([]Shown, 0, min(l.turns, mostKept))
	for i := range min(l.turns, mostKept) {
		d := l.recent[(l.turns-1-i)%mostKept].unpack()
		list = append(list, d.Shown())
	}
	return list
}

// Shown returns the decision as it is shown.
func (d *Decision) Shown() Shown {
	n := d.noted()
	e := Shown{
		At: d.When().UTC(), Result: d.Result.String(), Detail: n.detail,
		Published: int(d.Published), ID: d.eventID(), Sequence: d.seq,
	}
	if d.times > 1 {
		e.Times = int(d.times)
	}
	if n.fields != "" {
		e.Fields = strings.Split(n.fields, "\n")
	}
	return e
}
