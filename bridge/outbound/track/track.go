package track

import (
	"slices"
	"time"
)

// Track is the content of the events stream for one device. It is a value: copies do
// not affect each other. The zero Track is that of a device of which the stream
// holds nothing, with the alert history off.
type Track struct {
	Seq    uint64 // of the last location; 0 means none, or it has left the stream by age
	Last   Position
	SeenAt time.Time // when the bridge first saw the last location, by its own clock
	Times  Times

	Raised []string // the API's alerts; never changed in place

	// HistoryFrom is the time from which the alert history is still to be read;
	// zero: it was read up to the last location.
	HistoryFrom Instant

	Known  bool // Last and SeenAt are set
	Silent bool // the bridge's own alert is raised

	history     bool   // the alerts of the history are published too
	alone       bool   // alerts changed without the location
	refused     uint64 // hash of a location that the stream will never accept; 0 means none
	fences      []fence
	unpublished *unpublished
	seen        []alertKey
}

// New returns the track of a device of which the stream holds nothing. With
// history it remembers the alerts that were published.
func New(history bool) Track { return Track{history: history} }

// Position is the part of the last location that is kept.
type Position struct {
	Hash     uint64
	Time     Instant
	Lat, Lon float32 // for display: exact to a metre or two
	Speed    float32 // NaN: absent
	Input    int8
	Fields   Fields
}

// position is the part of a fix that is kept.
func (f *Fix) position() Position {
	return Position{Hash: f.Hash, Time: InstantOf(f.Time), Lat: float32(f.Lat), Lon: float32(f.Lon), Speed: float32(f.Speed), Input: f.Input, Fields: f.Fields}
}

// fence is the sequence of the last message of an alert, by its token.
type fence struct {
	token string
	seq   uint64
}

// maxFences is the number of alerts from which on a new one takes the place of
// the one that was published least recently. The stream's refusal brings that
// one back if it is needed again.
const maxFences = 256

// unpublished are changes that the last location announces and that the stream
// does not hold. It is never changed in place.
type unpublished struct {
	fix     *Fix
	changes []AlertChange
}

// alertKey identifies an alert of the history.
type alertKey struct {
	alert string
	at    Instant
}

// anyAlert stands for all alerts of a time in an alertKey.
const anyAlert = ""

// maxSeen is the number of alerts from which on those are forgotten that no
// request can bring again.
const maxSeen = 256

// Same reports whether a location with this hash is no news: it is the last one
// of the stream, or the one that the stream refused last.
func (t *Track) Same(hash uint64) bool {
	return t.Known && hash == t.Last.Hash || t.refused != 0 && hash == t.refused
}

// HistoryGap is [Times.Gap] for the alert history, which may have been left
// unread before the last location.
func (t *Track) HistoryGap(fix, observed time.Time, limit time.Duration) (from, to time.Time, cut bool) {
	from, to, cut = t.Times.Gap(fix, observed, limit)
	history := t.HistoryFrom.Time()
	if history.IsZero() || !from.Before(to) || !history.Before(from) {
		return from, to, cut
	}
	if earliest := fix.Add(-limit); history.Before(earliest) {
		return earliest, to, true
	}
	return history, to, false
}

// Alone reports whether alerts changed after the last location and without it,
// so that the alerts of the same location may be news.
func (t *Track) Alone() bool { return t.alone }

// Unpublished returns the number of alert changes that the last location
// announces and that the stream does not hold.
func (t *Track) Unpublished() int {
	if t.unpublished == nil {
		return 0
	}
	return len(t.unpublished.changes)
}

// Expire notes that the messages before a sequence have left the stream by age.
func (t *Track) Expire(first uint64) {
	if t.Seq < first {
		t.Seq = 0
	}
	t.fences = slices.DeleteFunc(slices.Clone(t.fences), func(f fence) bool { return f.seq < first })
}

// fence returns the sequence of the last message of an alert; 0 means none.
func (t *Track) fence(token string) uint64 {
	for i := range t.fences {
		if t.fences[i].token == token {
			return t.fences[i].seq
		}
	}
	return 0
}

func (t *Track) setFence(token string, seq uint64) {
	list := slices.Clone(t.fences)
	at := slices.IndexFunc(list, func(f fence) bool { return f.token == token })
	if at < 0 && len(list) >= maxFences {
		at = 0
		for i := range list {
			if list[i].seq < list[at].seq {
				at = i
			}
		}
	}
	if at < 0 {
		t.fences = append(slices.Clip(list), fence{token, seq})
		return
	}
	list[at] = fence{token, seq}
	t.fences = list
}

// change applies an alert change to the alerts that are raised.
func (t *Track) change(c AlertChange) {
	raised := slices.Contains(t.Raised, c.Alert)
	switch {
	case c.Own:
		t.Silent = c.Raised
	case c.Raised && !raised:
		t.alone = true
		t.Raised = append(slices.Clip(t.Raised), c.Alert)
	case !c.Raised && raised:
		t.alone = true
		t.Raised = slices.DeleteFunc(slices.Clone(t.Raised), func(a string) bool { return a == c.Alert })
	}
}

// published removes a change from the unpublished ones.
func (t *Track) published(c AlertChange) {
	if t.unpublished == nil {
		return
	}
	left := slices.DeleteFunc(slices.Clone(t.unpublished.changes), func(o AlertChange) bool { return o == c })
	if len(left) == 0 {
		t.unpublished = nil
		return
	}
	t.unpublished = &unpublished{t.unpublished.fix, left}
}

// see notes that an alert of that time is published.
func (t *Track) see(alert string, at Instant) {
	if k := (alertKey{alert, at}); t.history && !slices.Contains(t.seen, k) {
		t.seen = append(slices.Clip(t.seen), k)
	}
}

// forgetSeen forgets alerts that no request can bring again.
func (t *Track) forgetSeen() {
	from := t.Times.Newest
	if !t.HistoryFrom.IsZero() {
		from = min(from, t.HistoryFrom)
	}
	if len(t.seen) > maxSeen {
		t.seen = slices.DeleteFunc(slices.Clone(t.seen), func(k alertKey) bool { return k.at < from })
	}
}
