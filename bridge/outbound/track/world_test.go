package track

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/publisher"
)

// A world is one device at the API, the events stream, and two replicas that both
// believe that the device is theirs. Every act of a replica is a step of its own,
// so that anything may come between an answer and its publication, and between
// any two events.
type world struct {
	rules    rules
	now      time.Time
	shown    []answer // the states that the API showed, each once
	alerts   []Row    // the API's alert history
	due      []Row    // those of them that must be published
	msgs     []event  // in the stream
	log      []event  // all that the stream took and did not lose
	first    uint64   // of the stream
	last     uint64
	origin   uint64    // events that vanish from here on aged out
	created  time.Time // of the stream
	bucket   event     // newest location
	silence  event     // newest message of the alert silent
	replicas [2]replica
	by       int  // the replica that published last
	endless  bool // a turn did not end
	lostAck  bool // the answer to the next event is lost
}

// rules are the settings.
type rules struct{ backfill, history, silent, ignoreAlerts bool }

const (
	silentAfter = 30 * time.Second
	gapLimit    = time.Hour
)

// answer is a state that the API showed.
type answer struct {
	index    int
	fix      *Fix
	tooLarge bool
}

// event is a message of the stream, or one on its way there.
type event struct {
	subject  string // L, or A and the alert's token
	id       string
	seq      uint64
	at       time.Time
	expect   uint64
	content  string
	answer   int // index of the answer that it is about; -1: it was not polled
	hash     uint64
	alert    string
	state    string
	source   string
	fixTime  time.Time
	backfill bool
	tooLarge bool
	stored   Stored
	planned  uint64 // last sequence of the stream when a replica planned it
}

var parser = NewParser([]string{"ignored"}, func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) })

// ignoring is a parser for which a change of the alerts alone is no change.
var ignoring = NewParser([]string{"ignored", "alerts"}, func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) })

func (w *world) parser() *Parser {
	if w.rules.ignoreAlerts {
		return ignoring
	}
	return parser
}

func newWorld(r rules) *world {
	w := &world{rules: r, now: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), first: 1, origin: 1}
	for i := range w.replicas {
		w.replicas[i] = replica{track: New(r.history), reread: true}
	}
	return w
}

// clone copies a world. Tracks and steps are never changed in place.
func (w *world) clone() *world {
	c := *w
	c.shown, c.alerts = slices.Clip(w.shown), slices.Clip(w.alerts)
	c.msgs, c.log = slices.Clip(w.msgs), slices.Clip(w.log)
	for i := range c.replicas {
		r := &c.replicas[i]
		r.part = slices.Clone(r.part)
		if r.pub != nil {
			p := *r.pub
			r.pub = &p
		}
	}
	return &c
}

// show has the API show another fix: so long after the newest one, with these
// alerts.
func (w *world) show(after time.Duration, alerts ...string) {
	at := w.now
	for _, a := range w.shown {
		if t := a.fix.Time; t.After(at) && !t.After(w.now.Add(futureSlack)) {
			at = t
		}
	}
	w.put(at.Add(after), alerts...)
}

func (w *world) put(at time.Time, alerts ...string) {
	names := ""
	if len(alerts) > 0 {
		names = `"` + strings.Join(alerts, `","`) + `"`
	}
	raw := fmt.Sprintf(`{"dateTime":%q,"latitude":1,"longitude":2,"v":%d,"alerts":[%s]}`, at.Format(time.RFC3339Nano), len(w.shown)%7, names)
	hash, err := w.parser().Hash([]byte(raw))
	if err != nil {
		panic(err)
	}
	f, err := w.parser().Fix([]byte(raw), hash)
	if err != nil {
		panic(err)
	}
	w.shown = append(w.shown, answer{index: len(w.shown), fix: f})
	for _, a := range alerts {
		w.record(a, at)
	}
}

// back has the API show the state before the present one again.
func (w *world) back() {
	if n := len(w.shown); n > 1 {
		f := *w.shown[n-2].fix
		w.shown = append(w.shown, answer{index: n, fix: &f, tooLarge: w.shown[n-2].tooLarge})
	}
}

// missed adds an alert to the history that no poll shows. It is due if it is newer than
// all that was published, and no replica has read the history and not published yet.
func (w *world) missed(alert string) {
	at := w.now.Add(-time.Second)
	w.record(alert, at)
	older := slices.ContainsFunc(w.log, func(e event) bool { return e.subject == "L" && !e.fixTime.Before(at) })
	if w.rules.history && alert != "Large" && w.tail("L") != nil && !older && w.replicas[0].pub == nil && w.replicas[1].pub == nil {
		w.due = append(slices.Clip(w.due), w.alerts[len(w.alerts)-1])
	}
}

// record adds an alert to the API's history.
func (w *world) record(alert string, at time.Time) {
	w.alerts = append(w.alerts, Row{Alert: alert, Token: publisher.Encode(alert), Time: at, DateTime: []byte(`"` + at.Format(time.RFC3339Nano) + `"`), Latitude: []byte("1"), Longitude: []byte("2")})
}

// tail returns the last message of a subject, or nil.
func (w *world) tail(subject string) *event {
	for i := len(w.msgs) - 1; i >= 0; i-- {
		if w.msgs[i].subject == subject {
			return &w.msgs[i]
		}
	}
	return nil
}

// age has the first half of the stream leave by age. An alert that changed
// without its location, because that was too large or does not depend on it, is
// remembered as long as the events alone, so it does not leave. Nor does
// anything while changes of alerts are missing: no bridge is away for that long
// just then.
func (w *world) age() {
	// The retention is longer than the longest gap.
	w.now = w.now.Add(2 * gapLimit)
	w.alerts, w.due = nil, nil
	n := (len(w.msgs) + 1) / 2
	for i := range w.msgs {
		if w.alone(&w.msgs[i]) {
			n = min(n, i)
		}
	}
	var fresh replica
	if w.load(&fresh); fresh.track.Unpublished() > 0 || w.early() {
		n = 0
	}
	// No turn takes that long, and a replica that works on another one's device is
	// informed sooner.
	for i := range w.replicas {
		if r := &w.replicas[i]; r.reread || r.pub != nil || i != w.by || r.track.Last.Hash != w.bucket.hash || r.track.Silent != fresh.track.Silent {
			w.crash(i)
		}
		w.replicas[i].asked = nil
	}
	w.msgs = w.msgs[n:]
	w.first = w.last + 1
	if len(w.msgs) > 0 {
		w.first = w.msgs[0].seq
	}
}

// early reports whether a change that the last location announces is in the stream
// before it, because a replica that was held up published it: a restart just
// after it has left by age would publish it again.
func (w *world) early() bool {
	for _, c := range announced(w.bucket.stored.Announced) {
		late := slices.ContainsFunc(w.msgs, func(e event) bool {
			return e.alert == c.Alert && e.source != publisher.SourceHistory && e.seq > w.bucket.seq
		})
		if c.Alert != "Large" && !late && w.bucket.seq >= w.first {
			return true
		}
	}
	return false
}

// alone reports whether an alert changed without its location, which is still
// the last one.
func (w *world) alone(e *event) bool {
	if e.subject == "L" || e.source != "" || w.bucket.seq > e.seq {
		return false
	}
	return !slices.ContainsFunc(announced(w.bucket.stored.Announced), func(c AlertChange) bool { return c.Alert == e.alert && c.state() == e.state })
}

// lose has the stream lose its last messages; the bridge notices. If older ones
// have left by age, the predecessor of a lost message is unknown, and all
// are lost.
func (w *world) lose(n int) {
	n = min(n, len(w.msgs))
	if w.first > w.origin {
		n = len(w.msgs)
	}
	gone := w.msgs[len(w.msgs)-n:]
	w.msgs = w.msgs[:len(w.msgs)-n]
	w.log = slices.DeleteFunc(slices.Clone(w.log), func(e event) bool {
		return slices.ContainsFunc(gone, func(g event) bool { return g.seq == e.seq })
	})
	if len(w.msgs) == 0 {
		w.first = w.last + 1
		w.origin, w.created = w.first, w.now
		w.log = nil
	}
	w.bucket, w.silence, w.due = event{}, event{}, nil
	if e := w.tail("L"); e != nil {
		w.bucket = *e
	}
	if e := w.tail("A" + SilentAlert); e != nil {
		w.silence = *e
	}
	// A turn under way is dropped. An event on its way to the broker may
	// be stored all the same, which is not modelled.
	for i := range w.replicas {
		r := &w.replicas[i]
		if r.pub != nil {
			r.track = r.pub.Track()
		}
		r.reread, r.asked, r.pub, r.part = true, nil, nil, nil
	}
}
