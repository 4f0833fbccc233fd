package track

import (
	"slices"
	"strings"
	"time"
)

// futureSlack is how far ahead of the bridge's clock a fix may be dated without
// counting as dated in the future.
const futureSlack = time.Minute

// Times are the times of the fixes that were published of a device, as far as
// they decide where a gap begins. Low and High are zero, or the bounds of those
// published times that are later than Newest.
type Times struct {
	Newest    Instant // the newest time that is not in the future
	Low, High Instant
}

// add returns the times after a fix was published that the bridge saw at
// observed.
func (t Times) add(fix, observed time.Time) Times {
	at := InstantOf(fix)
	switch {
	case fix.After(observed.Add(futureSlack)):
		if t.Low.IsZero() || at < t.Low {
			t.Low = at
		}
		t.High = max(t.High, at)
		return t
	case at <= t.Newest:
		return t
	}
	t.Newest = at
	switch {
	case t.High <= at:
		t.Low, t.High = 0, 0
	case t.Low <= at:
		t.Low = at // the next one above is not known
	}
	return t
}

// Gap returns the range before a fix of which nothing was published yet. It is
// empty if from is not before to. No gap reaches back further than limit; cut is
// true if a longer one was shortened. observed is when the bridge saw the fix.
func (t Times) Gap(fix, observed time.Time, limit time.Duration) (from, to time.Time, cut bool) {
	from, to = t.Newest.Time(), fix
	switch at := InstantOf(fix); {
	case fix.After(observed.Add(limit)): // the next fix asks for the same gap
		return fix, fix, false
	case t.High.IsZero():
	case at > t.High:
		from = t.High.Time()
	case at > t.Low:
		to = t.Low.Time()
	}
	if from.IsZero() || !from.Before(to) {
		return to, to, false
	}
	if earliest := fix.Add(-limit); from.Before(earliest) {
		return earliest, to, true
	}
	return from, to, false
}

// header writes the times after a fix was published for its location event. It
// returns "" if they follow from the fix alone, and no other fix has its time.
func (t Times) header(fix, observed time.Time) string {
	after := t.add(fix, observed)
	if after == (Times{}).add(fix, observed) && !slices.Contains(t.list(), InstantOf(fix)) {
		return ""
	}
	var b strings.Builder
	for i, at := range after.list() {
		if i > 0 {
			b.WriteByte(' ')
		}
		if at.IsZero() {
			b.WriteByte('-')
		} else {
			b.WriteString(at.Time().Format(time.RFC3339Nano))
		}
	}
	return b.String()
}

// list returns the times in the order of the header.
func (t Times) list() []Instant { return []Instant{t.Newest, t.Low, t.High} }

// timesOf reads the times from the header of the last location event.
func timesOf(header string, fix, observed time.Time) Times {
	var at [3]Instant
	i := 0
	for field := range strings.FieldsSeq(header) {
		if i == len(at) {
			break
		}
		if v, err := time.Parse(time.RFC3339Nano, field); err == nil {
			at[i] = InstantOf(v)
		}
		i++
	}
	if i != len(at) || at[1].IsZero() != at[2].IsZero() || at[2] < at[1] {
		return Times{}.add(fix, observed)
	}
	return Times{Newest: at[0], Low: at[1], High: at[2]}
}
