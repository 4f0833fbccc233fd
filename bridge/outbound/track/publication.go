package track

import (
	"slices"
	"time"

	"plaspy-bridge/publisher"
)

// News is the input of a publication: the findings of a turn.
type News struct {
	Observed time.Time // when the API answered
	Rows     []Row     // of the alert history, in order
	Fixes    []*Fix    // back-filled ones, then the one that was polled
	// Since is the time from which the alert history is still to be read after
	// these fixes; zero means it was read.
	Since time.Time
	// Alerts is the polled fix if its alerts may have changed and the location
	// has not, else nil.
	Alerts *Fix
	// Silent is the polled fix if the bridge's own alert is to be raised with it,
	// else nil.
	Silent *Fix
}

// Row is one alert of the alert history.
type Row struct {
	Alert, Token string
	Time         time.Time

	DateTime, Latitude, Longitude []byte // as the API spelled them
	Texts                         []byte // a JSON array, or nil
}

// Maker makes the events of a publication, in the order of the calls.
type Maker interface {
	Location(l Location)
	Alert(a Alert)
}

// Location is a location event to make.
type Location struct {
	Fix       *Fix
	Expect    uint64    // sequence of the device's last location
	Announced string    // [publisher.HeaderEdges]
	Since     time.Time // [publisher.HeaderHistorySince]; zero means none
	Newest    string    // [publisher.HeaderNewest]
}

// Alert is an alert event to make.
type Alert struct {
	Expect              uint64 // sequence of the alert's last message
	Alert, Token        string
	State, Source       string
	Critical            bool
	Texts               []byte // nil means none
	DateTime            []byte
	Latitude, Longitude []byte
	FixTime             time.Time
}

// Publication holds the events of one turn that are left to publish, as steps, and the
// track, which follows the events that the stream has stored.
type Publication struct {
	track    Track
	observed time.Time
	steps    []step
	refused  int
}

// step is one event of a publication.
type step interface {
	// message makes the event through m. t is a copy of the track, changed by the
	// steps before.
	message(t *Track, observed time.Time, m Maker)
	// stored updates the track after the event was stored.
	stored(t *Track, observed time.Time, seq uint64)
	// refused updates the track if the stream will never accept the event.
	refused(t *Track, observed time.Time)
}

// Publish plans a publication: first the changes that the last location
// announces and the stream lacks, then the rows of the history that were not
// published yet, then each fix and the changes of its alerts.
func (t *Track) Publish(n News) *Publication {
	p := &Publication{track: *t, observed: n.Observed}
	silent := t.Silent
	if len(n.Fixes) > 0 {
		p.steps = make([]step, 0, len(n.Fixes)+len(n.Rows)+t.Unpublished())
	}
	if u := t.unpublished; u != nil {
		for _, c := range u.changes {
			p.steps = append(p.steps, &changeStep{u.fix, c})
			silent = silent && !c.Own
		}
	}
	p.rows(t, n)
	raised := t.Raised
	for _, f := range n.Fixes {
		changes := changesTo(f, raised, silent)
		p.steps = append(p.steps, &locationStep{f, changes, n.Since})
		for _, c := range changes {
			p.steps = append(p.steps, &changeStep{f, c})
		}
		if f.AlertsKnown {
			raised = f.Alerts
		}
		silent = false
	}
	if n.Alerts != nil {
		for _, c := range changesTo(n.Alerts, raised, false) {
			p.steps = append(p.steps, &changeStep{n.Alerts, c})
		}
	}
	if n.Silent != nil && !silent {
		p.steps = append(p.steps, &changeStep{n.Silent, AlertChange{Alert: SilentAlert, Raised: true, Own: true}})
	}
	return p
}

// rows adds the rows that were published neither from the history nor with a
// fix.
func (p *Publication) rows(t *Track, n News) {
	if len(n.Rows) == 0 {
		return
	}
	known := make(map[alertKey]bool, len(t.seen)+len(n.Rows))
	for _, k := range t.seen {
		known[k] = true
	}
	for _, f := range n.Fixes {
		for _, a := range f.Alerts {
			known[alertKey{a, InstantOf(f.Time)}] = true
		}
	}
	for i := range n.Rows {
		k := alertKey{n.Rows[i].Alert, InstantOf(n.Rows[i].Time)}
		if !known[k] && !known[alertKey{anyAlert, k.at}] {
			known[k] = true
			p.steps = append(p.steps, &rowStep{&n.Rows[i]})
		}
	}
}

// Done reports whether nothing is left to publish.
func (p *Publication) Done() bool { return len(p.steps) == 0 }

// Unfenced reports whether the next event is not a location. The fence of such an
// event does not show that another replica has published a newer location, so the
// caller has to check that.
func (p *Publication) Unfenced() bool {
	if p.Done() {
		return false
	}
	_, location := p.steps[0].(*locationStep)
	return !location
}

// Next makes the next events through m, at most limit of them.
func (p *Publication) Next(limit int, m Maker) {
	t := p.track
	for _, s := range p.steps[:min(limit, len(p.steps))] {
		s.message(&t, p.observed, m)
	}
}

// Polled returns the fix that the next event publishes if it is a location that was
// polled, else nil.
func (p *Publication) Polled() *Fix {
	if s, ok := p.steps[0].(*locationStep); ok && !s.fix.Backfilled {
		return s.fix
	}
	return nil
}

// Stored drops the next event, which is stored with a sequence.
func (p *Publication) Stored(seq uint64) {
	p.steps[0].stored(&p.track, p.observed, seq)
	p.steps = p.steps[1:]
}

// Found reports whether the publication goes on after an event was in the stream
// already. It does not if locations follow: if another replica published the event,
// the API may have shown them before it. The caller reads the stream to find out.
func (p *Publication) Found() bool {
	return !slices.ContainsFunc(p.steps, func(s step) bool {
		_, location := s.(*locationStep)
		return location
	})
}

// Refuse drops the next event, which the stream will never accept.
func (p *Publication) Refuse() {
	p.refused++
	p.steps[0].refused(&p.track, p.observed)
	p.steps = p.steps[1:]
}

// Refused returns the number of events that the stream will never accept.
func (p *Publication) Refused() int { return p.refused }

// Expire notes that the messages before a sequence have left the stream by age.
func (p *Publication) Expire(first uint64) { p.track.Expire(first) }

// Track returns the track as far as the stream has taken the publication.
func (p *Publication) Track() Track { return p.track }

// Observed returns when the API gave the answer that is published.
func (p *Publication) Observed() time.Time { return p.observed }

// locationStep publishes a fix and announces the changes that follow it.
type locationStep struct {
	fix     *Fix
	changes []AlertChange
	since   time.Time
}

func (s *locationStep) message(t *Track, observed time.Time, m Maker) {
	m.Location(Location{Fix: s.fix, Expect: t.Seq, Announced: announce(s.changes), Since: s.since, Newest: t.Times.header(s.fix.Time, observed)})
	t.Times = t.Times.add(s.fix.Time, observed)
}

func (s *locationStep) stored(t *Track, observed time.Time, seq uint64) {
	f := s.fix
	t.Seq, t.Known, t.Last, t.SeenAt, t.refused = seq, true, f.position(), observed, 0
	t.Times = t.Times.add(f.Time, observed)
	t.HistoryFrom = InstantOf(s.since)
	if f.AlertsKnown {
		t.alone = false
		if !slices.Equal(t.Raised, f.Alerts) { // else others share the old ones
			t.Raised = slices.Clip(f.Alerts)
		}
	}
	t.unpublished = nil
	if len(s.changes) > 0 {
		t.unpublished = &unpublished{f, s.changes}
	}
	for _, a := range f.Alerts {
		t.see(a, t.Last.Time)
	}
	t.forgetSeen()
}

// refused leaves the last location as it is: the same location is no news, and
// the changes of its alerts are published without it.
func (s *locationStep) refused(t *Track, observed time.Time) {
	t.refused, t.SeenAt = s.fix.Hash, observed
}

// changeStep publishes an alert change.
type changeStep struct {
	fix    *Fix
	change AlertChange
}

func (s *changeStep) message(t *Track, _ time.Time, m Maker) {
	f, token := s.fix, publisher.Encode(s.change.Alert)
	a := Alert{
		Expect: t.fence(token), Alert: s.change.Alert, Token: token, State: s.change.state(), Critical: f.Critical, Texts: f.Texts,
		DateTime: f.DateTime, Latitude: f.Latitude, Longitude: f.Longitude, FixTime: f.Time,
	}
	if s.change.Own {
		a.Source, a.Critical, a.Texts = publisher.SourceBridge, false, nil
	}
	m.Alert(a)
}

func (s *changeStep) stored(t *Track, observed time.Time, seq uint64) {
	t.setFence(publisher.Encode(s.change.Alert), seq)
	s.refused(t, observed)
}

func (s *changeStep) refused(t *Track, _ time.Time) {
	t.change(s.change)
	t.published(s.change)
}

// rowStep publishes a row of the alert history.
type rowStep struct{ row *Row }

func (s *rowStep) message(t *Track, _ time.Time, m Maker) {
	r := s.row
	m.Alert(Alert{
		Expect: t.fence(r.Token), Alert: r.Alert, Token: r.Token, State: publisher.Raised, Source: publisher.SourceHistory,
		Texts: r.Texts, DateTime: r.DateTime, Latitude: r.Latitude, Longitude: r.Longitude, FixTime: r.Time,
	})
}

func (s *rowStep) stored(t *Track, observed time.Time, seq uint64) {
	t.setFence(s.row.Token, seq)
	s.refused(t, observed)
}

func (s *rowStep) refused(t *Track, _ time.Time) { t.see(s.row.Alert, InstantOf(s.row.Time)) }
