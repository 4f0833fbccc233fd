package track

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

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
	msgs     []event  // in the stream
	log      []event  // all that the stream took and did not lose
	first    uint64   // of the stream
	last     uint64
	origin   uint64 // what is gone from here on aged out
	bucket   event  // newest location
	silence  event  // newest message of the alert silent
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
}

// replica is what one process knows.
type replica struct {
	track  Track
	reread bool
	asked  *answer // the answer that it holds and has not looked at yet
	pub    *Publication
	part   []event
	next   int
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

// missed adds an alert to the history that no poll shows.
func (w *world) missed(alert string) { w.record(alert, w.now.Add(-time.Second)) }

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
	// The retention is longer than what a gap may be.
	w.now = w.now.Add(2 * gapLimit)
	w.alerts = nil
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
	// No turn takes that long, and a replica that works for another one's device is
	// told sooner.
	for i := range w.replicas {
		r := &w.replicas[i]
		r.reread = r.reread || r.pub != nil || i != w.by || r.track.Last.Hash != w.bucket.hash
		r.asked, r.pub, r.part = nil, nil, nil
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
		if t := w.tail("A" + publisher.Encode(c.Alert)); c.Alert != "Large" && (t == nil || t.seq < w.bucket.seq) && w.bucket.seq >= w.first {
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
// have left by age, what a lost message followed is not known any more, and all
// is lost.
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
		w.origin = w.first
		w.log = nil
	}
	w.bucket, w.silence = event{}, event{}
	if e := w.tail("L"); e != nil {
		w.bucket = *e
	}
	if e := w.tail("A" + SilentAlert); e != nil {
		w.silence = *e
	}
	// A turn under way is dropped. What is on its way to the broker just then may
	// be stored all the same, which is not modelled.
	for i := range w.replicas {
		r := &w.replicas[i]
		if r.pub != nil {
			r.track = r.pub.Track()
		}
		r.reread, r.asked, r.pub, r.part = true, nil, nil, nil
	}
}

// crash ends a replica and starts it again.
func (w *world) crash(i int) {
	w.replicas[i] = replica{track: New(w.rules.history), reread: true}
}

// ask has the API answer a poll of a replica.
func (w *world) ask(i int) {
	if r := &w.replicas[i]; r.pub == nil && r.asked == nil && len(w.shown) > 0 {
		if r.reread {
			w.load(r)
		}
		r.asked = &w.shown[len(w.shown)-1]
	}
}

// load reads the state from the stream, or else from the buckets.
func (w *world) load(r *replica) {
	var im Image
	location := w.tail("L")
	if location == nil && w.bucket.seq >= w.origin && w.bucket.seq > 0 && w.bucket.seq < w.first {
		location = &w.bucket
	}
	if location != nil {
		s := location.stored
		if location == &w.bucket {
			s.Seq = 0
		}
		if err := im.Location(w.parser(), &s); err != nil {
			panic(err)
		}
	}
	for i := range w.msgs {
		e := &w.msgs[i]
		if e.subject != "L" && (w.rules.history || w.tail(e.subject).seq == e.seq) {
			im.Alert(w.parser(), &e.stored, w.rules.history)
		}
	}
	if s := w.silence; s.seq >= w.origin && s.seq > 0 && s.seq < w.first {
		s.stored.Seq = 0
		im.Alert(w.parser(), &s.stored, w.rules.history)
	}
	r.track, r.reread = im.Track(w.rules.history), false
}

// compare has a replica look at the answer that it holds, and plan what it
// publishes.
func (w *world) compare(i int) {
	r := &w.replicas[i]
	if r.asked == nil {
		return
	}
	a := r.asked
	r.asked = nil
	t := &r.track
	n := News{Observed: w.now}
	if t.Same(a.fix.Hash) {
		if w.rules.ignoreAlerts || t.Alone() {
			n.Alerts = a.fix
		}
		if w.rules.silent && t.Known && !t.Silent && w.now.Sub(t.SeenAt) >= silentAfter {
			n.Silent = a.fix
		}
	} else {
		n.Fixes, n.Since = []*Fix{a.fix}, t.HistoryFrom
		if from, to, _ := t.Times.Gap(a.fix.Time, w.now, gapLimit); from.Before(to) {
			w.fillGap(&n, t, from, to, a.fix)
		}
	}
	p := t.Publish(n)
	if location := w.tail("L"); p.Unfenced() && (location == nil && t.Seq != 0 && !w.aged(t.Seq) || location != nil && location.seq != t.Seq) {
		r.reread = true
		return
	}
	if !p.Done() {
		r.pub, r.part = p, nil
	}
}

func (w *world) fillGap(n *News, t *Track, from, to time.Time, f *Fix) {
	if w.rules.backfill {
		var fixes []*Fix
		for _, s := range w.shown {
			if at := s.fix.Time; at.After(from) && at.Before(to) && !slices.ContainsFunc(fixes, func(o *Fix) bool { return o.Hash == s.fix.Hash }) {
				b := *s.fix
				b.Backfilled = true
				fixes = append(fixes, &b)
			}
		}
		slices.SortStableFunc(fixes, func(a, b *Fix) int { return a.Time.Compare(b.Time) })
		n.Fixes = append(fixes, f)
	}
	if !w.rules.history {
		return
	}
	from, to, _ = t.HistoryGap(f.Time, w.now, gapLimit)
	if len(w.alerts)%3 == 2 { // the request fails
		n.Since = from
		return
	}
	n.Since = time.Time{}
	for _, row := range w.alerts {
		if !row.Time.Before(from) && !row.Time.After(to) {
			n.Rows = append(n.Rows, row)
		}
	}
}

// aged reports whether a message has left the stream by age.
func (w *world) aged(seq uint64) bool { return seq >= w.origin && seq < w.first }

// send has a replica send its next event, and take the answer.
func (w *world) send(i int) {
	r := &w.replicas[i]
	if r.pub == nil {
		return
	}
	if r.part == nil {
		m := maker{w: w}
		r.pub.Next(3, &m)
		r.part, r.next = m.events, 0
	}
	e := &r.part[r.next]
	if e.id == "" {
		for k := r.next - 1; k >= 0; k-- {
			if r.part[k].subject == e.subject {
				e.expect = r.part[k].seq
				break
			}
		}
		e.id = fmt.Sprint(e.subject, e.expect, e.content)
	}
	var last uint64
	tail := w.tail(e.subject)
	if tail != nil {
		last = tail.seq
	}
	switch {
	case e.tooLarge:
		r.pub.Refuse()
		r.part = nil
	case last == e.expect:
		w.take(e)
		w.by = i
		if w.lostAck {
			w.lostAck = false
			return // sent again: the fence refuses it, and its id is found
		}
		r.pub.Stored(e.seq)
		r.next++
	case tail != nil && tail.id == e.id:
		e.seq = tail.seq
		r.pub.Stored(e.seq)
		r.part = nil // another replica may have gone on
		if !r.pub.Found() {
			r.track, r.pub, r.reread = r.pub.Track(), nil, true
			return
		}
	case tail == nil && w.aged(e.expect):
		r.pub.Expire(w.first)
		r.part = nil
	default:
		r.track, r.pub, r.reread = r.pub.Track(), nil, true
		return
	}
	if r.next == len(r.part) {
		r.part = nil
	}
	if r.pub.Done() {
		r.track, r.pub, r.part = r.pub.Track(), nil, nil
	}
}

// take puts an event into the stream.
func (w *world) take(e *event) {
	w.last++
	e.seq, e.at = w.last, w.now
	e.stored.Seq, e.stored.At = e.seq, e.at
	w.msgs = append(slices.Clip(w.msgs), *e)
	w.log = append(slices.Clip(w.log), *e)
	switch e.subject {
	case "L":
		w.bucket = *e
	case "A" + SilentAlert:
		w.silence = *e
	}
}

// maker makes the events of a publication.
type maker struct {
	w      *world
	events []event
}

func (m *maker) Location(l Location) {
	at := slices.IndexFunc(m.w.shown, func(a answer) bool { return a.fix == l.Fix || l.Fix.Backfilled && a.fix.Hash == l.Fix.Hash })
	e := event{
		subject: "L", expect: l.Expect, content: fmt.Sprint(l.Fix.Hash), answer: at, hash: l.Fix.Hash,
		fixTime: l.Fix.Time, backfill: l.Fix.Backfilled, tooLarge: m.w.shown[at].tooLarge,
	}
	e.stored = Stored{Announced: l.Announced, Newest: l.Newest}
	if !l.Since.IsZero() {
		e.stored.Since = l.Since.Format(time.RFC3339Nano)
	}
	e.stored.Body = fmt.Appendf(nil, `{"observedAt":%q,"location":%s}`, m.w.now.Format(time.RFC3339Nano), l.Fix.Raw)
	m.events = append(m.events, e)
}

func (m *maker) Alert(a Alert) {
	texts := ""
	if a.Texts != nil {
		texts = `"texts":[],`
	}
	e := event{
		subject: "A" + a.Token, expect: a.Expect, answer: -1, alert: a.Alert, state: a.State, source: a.Source, fixTime: a.FixTime,
		tooLarge: a.Alert == "Large",
	}
	e.stored = Stored{Alert: a.Token}
	e.stored.Body = fmt.Appendf(nil, `{"alert":%q,"state":%q,"source":%q,%s"dateTime":%s}`, a.Alert, a.State, a.Source, texts, a.DateTime)
	e.content = fmt.Sprint(xxhash.Sum64(e.stored.Body))
	m.events = append(m.events, e)
}
