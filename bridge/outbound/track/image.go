package track

import (
	"bytes"
	"slices"
	"time"

	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// Stored is a message of the events stream, as far as a track depends on it.
type Stored struct {
	Seq   uint64    // 0: it has left the stream by age and was read from a bucket
	At    time.Time // when the stream took it
	Alert string    // the alert's token, if it is an alert
	// The headers of a location.
	Announced, Since, Newest string

	Body []byte
}

// Image collects the messages of one device while the stream is read. The zero
// Image is one without a message.
type Image struct {
	fix       *Fix // of the last location; nil means none, or it cannot be read
	located   bool
	seq       uint64
	seenAt    time.Time
	times     Times
	others    bool          // times are those of other locations too
	changes   []AlertChange // that the location announces
	history   Instant
	alerts    []alertImage
	byToken   map[string]int // place in alerts, once they are many
	silent    silence
	published []alertKey
}

// alertImage is the content of the stream for one alert.
type alertImage struct {
	token string
	seq   uint64 // of its last message
	// The last message that is a change seen in a poll.
	changed uint64
	raised  bool
}

// silence is the last change of the bridge's own alert.
type silence struct {
	found    bool
	seq      uint64
	raised   bool
	dateTime []byte
}

// Location takes the device's last location. The error is that of a location
// that cannot be read; it counts for the fence nevertheless.
func (im *Image) Location(p *Parser, s *Stored) error {
	im.fix, im.located, im.seq = nil, true, s.Seq
	var raw, observed []byte
	if err := rawjson.Members(s.Body, func(key, value []byte) bool {
		switch string(key) {
		case "location":
			raw = value
		case "observedAt":
			observed = value
		}
		return true
	}); err != nil {
		return err
	}
	hash, err := p.Hash(raw)
	if err != nil {
		return err
	}
	f, err := p.Fix(raw, hash)
	if err != nil {
		return err
	}
	im.changes = announced(s.Announced)
	im.fix, im.seenAt = f.outline(), s.At
	if at, err := p.Time(observed); err == nil {
		im.seenAt = at
	}
	im.times, im.others = timesOf(s.Newest, f.Time, im.seenAt), s.Newest != ""
	im.history = 0
	if at, err := time.Parse(time.RFC3339Nano, s.Since); err == nil {
		im.history = InstantOf(at)
	}
	return nil
}

// Alert takes a message of one of the device's alerts. The messages of an alert
// come in the order of the stream.
func (im *Image) Alert(p *Parser, s *Stored, history bool) {
	a := im.alert(s.Alert)
	a.seq = max(a.seq, s.Seq)
	var state, source, dateTime, texts []byte
	if rawjson.Members(s.Body, func(key, value []byte) bool {
		switch string(key) {
		case "state":
			state, _ = rawjson.Unquote(value)
		case "source":
			source, _ = rawjson.Unquote(value)
		case "dateTime":
			dateTime = value
		case "texts":
			texts = value
		}
		return true
	}) != nil {
		return // it is not the bridge's, and counts for the fence only
	}
	raised := string(state) == publisher.Raised
	// Released versions named no source of their own alert.
	own := string(source) == publisher.SourceBridge || len(source) == 0 && s.Alert == SilentAlert && texts == nil
	switch {
	case string(source) == publisher.SourceHistory:
	case own:
		if s.Seq > 0 || !im.silent.found {
			im.silent = silence{true, s.Seq, raised, bytes.Clone(dateTime)}
		}
		return
	default:
		a.changed, a.raised = s.Seq, raised
	}
	if !history || !raised {
		return
	}
	if at, err := p.Time(dateTime); err == nil {
		if name, err := publisher.Decode(s.Alert); err == nil {
			im.published = append(im.published, alertKey{name, InstantOf(at)})
		}
	}
}

// manyAlerts is the number of alerts from which on they are looked up in a map.
const manyAlerts = 16

func (im *Image) alert(token string) *alertImage {
	at, found := im.byToken[token]
	if im.byToken == nil {
		at = slices.IndexFunc(im.alerts, func(a alertImage) bool { return a.token == token })
		found = at >= 0
	}
	if found {
		return &im.alerts[at]
	}
	im.alerts = append(im.alerts, alertImage{token: token})
	switch n := len(im.alerts); {
	case n == manyAlerts:
		im.byToken = make(map[string]int, 2*manyAlerts)
		for i := range im.alerts {
			im.byToken[im.alerts[i].token] = i
		}
	case n > manyAlerts:
		im.byToken[token] = n - 1
	}
	return &im.alerts[len(im.alerts)-1]
}

// Located reports whether the stream, or the bucket that outlives it, holds a
// location.
func (im *Image) Located() bool { return im.located }

// Track is the track of a device of which the stream holds this.
func (im *Image) Track(history bool) Track {
	t := Track{Seq: im.seq, history: history, fences: im.fences()}
	if history {
		t.seen = im.published
	}
	t.Silent = im.silent.found && im.silent.raised
	if im.fix == nil {
		im.applyAlerts(&t)
		return t
	}
	f := im.fix
	t.Known, t.Last, t.SeenAt, t.Times, t.HistoryFrom = true, f.position(), im.seenAt, im.times, im.history
	if f.AlertsKnown {
		t.Raised = slices.Clip(f.Alerts)
	}
	for _, a := range f.Alerts {
		t.see(a, t.Last.Time)
	}
	if im.others { // the stream's last location does not show which alerts they had
		for _, at := range im.times.list() {
			t.see(anyAlert, at)
		}
	}
	im.applyAlerts(&t)
	if left := im.unpublished(history); len(left) > 0 {
		t.unpublished = &unpublished{f, left}
	}
	t.forgetSeen()
	return t
}

// fences lists the fences of the alerts that the stream holds.
func (im *Image) fences() []fence {
	var list []fence
	for i := range im.alerts {
		if im.alerts[i].seq > 0 {
			list = append(list, fence{im.alerts[i].token, im.alerts[i].seq})
		}
	}
	return list
}

// applyAlerts takes the changes that came after the location: the alerts changed
// alone, or the location is lost.
func (im *Image) applyAlerts(t *Track) {
	for i := range im.alerts {
		a := &im.alerts[i]
		if name, err := publisher.Decode(a.token); err == nil && a.changed > 0 && a.changed > im.seq {
			t.change(AlertChange{Alert: name, Raised: a.raised})
		}
	}
}

// unpublished lists the changes that the stream does not hold: those that the
// location announces, and those of alerts that have another state in the stream
// than the location shows, because a replica that was held up changed them. A
// location that has left the stream by age announces nothing more.
func (im *Image) unpublished(history bool) []AlertChange {
	var left []AlertChange
	if im.seq > 0 {
		for _, c := range im.changes {
			if c.Own && im.silentLost() || !c.Own && im.missing(im.alert(publisher.Encode(c.Alert)), c, history) {
				left = append(left, c)
			}
		}
		if im.fix.AlertsKnown {
			left = im.disagreeing(left, history)
		}
	}
	if im.silentIsOver() {
		left = append(left, AlertChange{Alert: SilentAlert, Own: true})
	}
	return left
}

// missing reports whether the stream lacks a change of one of the API's alerts that the
// location shows. A replica that was held up may have published it before the location.
// Without history, only the last message of an alert was read, and counts as a change.
func (im *Image) missing(a *alertImage, c AlertChange, history bool) bool {
	last := a.changed
	if !history {
		last = a.seq
	}
	return last < im.seq && (a.changed == 0 || a.raised != c.Raised)
}

// disagreeing appends the changes of alerts with a last change that is older than the
// location, and another one than the location shows.
func (im *Image) disagreeing(left []AlertChange, history bool) []AlertChange {
	for i := range im.alerts {
		a := &im.alerts[i]
		name, err := publisher.Decode(a.token)
		if err != nil || a.changed == 0 {
			continue
		}
		c := AlertChange{Alert: name, Raised: slices.Contains(im.fix.Alerts, name)}
		if im.missing(a, c, history) && !slices.Contains(left, c) {
			left = append(left, c)
		}
	}
	return left
}

// silentLost reports whether the stream lacks the change that ends the bridge's own
// alert: it comes after a change of the API's alert of that name, if there is one.
func (im *Image) silentLost() bool {
	return !im.silent.found && im.alert(publisher.Encode(SilentAlert)).changed > im.seq
}

// silentIsOver reports whether the bridge's own alert is raised for another fix
// than the last one: the change that clears it is missing.
func (im *Image) silentIsOver() bool {
	s := &im.silent
	return s.found && s.raised && (s.seq > 0 && s.seq < im.seq || !bytes.Equal(s.dateTime, im.fix.DateTime))
}

// Keep is the track of a device if its last location has left the stream by age
// since t was read: it is still the last one.
func (im *Image) Keep(t Track) Track {
	t.Seq, t.unpublished, t.fences = 0, nil, im.fences()
	for _, k := range im.published { // by another replica
		t.see(k.alert, k.at)
	}
	if im.silent.found {
		t.Silent = im.silent.raised
	}
	im.applyAlerts(&t)
	return t
}
