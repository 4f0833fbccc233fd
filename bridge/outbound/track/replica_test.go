package track

import (
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// replica is the state of one process.
type replica struct {
	track  Track
	reread bool
	asked  *answer // the answer that it holds and has not looked at yet
	pub    *Publication
	part   []event
	next   int

	planned uint64 // last sequence of the stream when pub was planned
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

// reread has a replica that publishes nothing read its device before the next poll.
func (w *world) reread(i int) { w.replicas[i].reread = true }

// load reads the state from the stream, or else from the buckets. A replica that knows the
// last location keeps it if it has left the stream by age.
func (w *world) load(r *replica) {
	var im Image
	location := w.tail("L")
	keep := location == nil && r.track.Known && w.aged(r.track.Seq) && !r.track.SeenAt.Before(w.created)
	if location == nil && !keep && w.bucket.seq >= w.origin && w.bucket.seq > 0 && w.bucket.seq < w.first {
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
	r.reread = false
	if keep {
		r.track = im.Keep(r.track)
		return
	}
	if s := w.silence; s.seq >= w.origin && s.seq > 0 && s.seq < w.first {
		s.stored.Seq = 0
		im.Alert(w.parser(), &s.stored, w.rules.history)
	}
	r.track = im.Track(w.rules.history)
}

// compare makes a replica compare the answer that it holds, and plan the events to
// publish.
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
		n.Fixes, n.Since = []*Fix{a.fix}, t.HistoryFrom.Time()
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
		r.pub, r.part, r.planned = p, nil, w.last
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
	if w.historyFails() {
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

// historyFails reports whether a request for the alert history fails now.
func (w *world) historyFails() bool { return len(w.alerts)%3 == 2 }

// aged reports whether a message has left the stream by age.
func (w *world) aged(seq uint64) bool { return seq == 0 || seq >= w.origin && seq < w.first }

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
		e.planned = r.planned
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
		subject: "L", expect: l.Expect, content: fmt.Sprint(l.Fix.Hash, l.Announced, l.Since, l.Newest), answer: at, hash: l.Fix.Hash,
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
