package harness

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Answer is one answer of lastLocation that showed a location.
type Answer struct {
	At   time.Time
	Life int // of the bridge that it was handed to, an index of Case.Lives
	Raw  string
}

// Case is what a run is judged by.
type Case struct {
	Shown  map[string][]Answer // by device, in the order of the answers
	Events []Event             // in the order of the stream
	Lives  []Life              // of the bridge
	Away   []Span              // of the broker
	Losses []Loss              // of the broker

	// History is, with back-fill, what the API keeps of each device, in the
	// order of its own time; nil without.
	History map[string][]string

	Grace   time.Duration // how long before a kill an answer may have come and not be stored
	Timeout time.Duration // PLASPY_TIMEOUT
}

// reconnect is how long the bridge may take to notice that the broker is back:
// its longest wait between two tries, and the reading of the state.
const reconnect = 4 * time.Second

// change is a run of answers with the same content.
type change struct {
	key     string
	answers []int // indexes into the device's answers
	raws    []string
	first   time.Time
	present bool // in the stream
}

// verdict is one device's share of the report.
type verdict struct {
	c       *Case
	r       *Report
	device  string
	answers []Answer
	changes []change
	events  []Event // locations
	alerts  []Event
}

// Judge compares what was shown with what the stream holds.
func Judge(c Case) Report {
	var r Report
	byDevice := map[string]*verdict{}
	of := func(device string) *verdict {
		v := byDevice[device]
		if v == nil {
			v = &verdict{c: &c, r: &r, device: device, answers: c.Shown[device]}
			byDevice[device] = v
		}
		return v
	}
	for device := range c.Shown {
		of(device)
	}
	ids := map[string]uint64{}
	added := map[string]int{}
	for _, e := range c.Events {
		if first, known := ids[e.ID]; known {
			r.Duplicated++
			r.say("%s: id %s of message %d is that of message %d", e.Device, e.ID, e.Seq, first)
		}
		ids[e.ID] = e.Seq
		switch v := of(e.Device); e.Kind {
		case "location":
			v.events = append(v.events, e)
		case "alert":
			v.alerts = append(v.alerts, e)
		case "device":
			if e.Change == "added" {
				added[e.Device]++
			}
		}
	}
	devices := make([]string, 0, len(byDevice))
	for device := range byDevice {
		devices = append(devices, device)
	}
	slices.Sort(devices)
	for _, device := range devices {
		byDevice[device].judge()
		if n := added[device]; n != 1 {
			r.DeviceEvents += max(n-1, 1-n)
			r.say("%s: %d device events say that it was added", device, n)
		}
	}
	r.Devices = len(devices)
	return r
}

func (v *verdict) judge() {
	v.collapse()
	if v.c.History != nil {
		v.fillIn()
	}
	v.r.Answers += len(v.answers)
	v.r.Shown += len(v.changes)
	v.r.Published += len(v.events)
	v.match()
	for i := range v.changes {
		v.missing(i)
	}
	v.stale()
	v.edges()
}

var inactive = regexp.MustCompile(`"inactiveSeconds":\d+`)

// key is the content of a location: what makes two of them the same.
func key(raw string) string { return inactive.ReplaceAllLiteralString(raw, "") }

// collapse makes changes of answers.
func (v *verdict) collapse() {
	for i, a := range v.answers {
		k := key(a.Raw)
		if n := len(v.changes); n == 0 || v.changes[n-1].key != k {
			v.changes = append(v.changes, change{key: k, first: a.At})
		}
		c := &v.changes[len(v.changes)-1]
		c.answers = append(c.answers, i)
		if !slices.Contains(c.raws, a.Raw) {
			c.raws = append(c.raws, a.Raw)
		}
	}
}

// fillIn puts what the API keeps, and did not show, between the changes that it
// showed: with back-fill that is to be published as well.
func (v *verdict) fillIn() {
	if len(v.changes) == 0 {
		return
	}
	at := make(map[string]int, len(v.changes))
	for i, c := range v.changes {
		at[c.key] = i
	}
	full := v.changes[:1:1]
	next := 1
	begun := false
	for _, raw := range v.c.History[v.device] {
		k := key(raw)
		i, shown := at[k]
		switch {
		case shown && i == 0:
			begun = true
			full[0].raws = append(full[0].raws, raw)
		case shown:
			for ; next <= i; next++ {
				full = append(full, v.changes[next])
			}
			full[len(full)-1].raws = append(full[len(full)-1].raws, raw)
		case begun && next < len(v.changes):
			full = append(full, change{key: k, raws: []string{raw}})
		}
	}
	v.changes = append(full, v.changes[next:]...)
}

// match finds the changes in the stream.
func (v *verdict) match() {
	where := map[string][]int{}
	for i, c := range v.changes {
		where[c.key] = append(where[c.key], i)
	}
	next, before := 0, ""
	for _, e := range v.events {
		k := key(e.Raw)
		found := where[k]
		n, _ := slices.BinarySearch(found, next)
		switch {
		case len(found) == 0:
			v.r.Different++
			v.r.say("%s: message %d is nothing that the API showed: %.200s", v.device, e.Seq, e.Raw)
		case n < len(found):
			c := &v.changes[found[n]]
			c.present = true
			next = found[n] + 1
			if !slices.Contains(c.raws, e.Raw) {
				v.r.Different++
				v.r.say("%s: message %d is not what the API showed byte for byte: %s, shown %q", v.device, e.Seq, e.Raw, c.raws)
			}
		case k == before:
			v.r.Duplicated++
			v.r.say("%s: message %d repeats the one before", v.device, e.Seq)
		default:
			v.r.Reordered++
			v.changes[found[len(found)-1]].present = true
			v.r.say("%s: message %d was shown before the one that it follows", v.device, e.Seq)
		}
		before = k
	}
}

// missing counts a change that is not in the stream.
func (v *verdict) missing(i int) {
	c := &v.changes[i]
	if c.present {
		return
	}
	switch {
	case v.c.History != nil:
	case v.taken(c):
		v.r.Taken++
		return
	case v.all(c, v.killed):
		v.r.Killed++
		return
	case v.all(c, func(i int) bool { return v.killed(i) || v.timedOut(i) }):
		v.r.TimedOut++
		return
	}
	v.r.Lost++
	v.r.say("%s: lost what was shown %d times from %s to life %d, change %d of %d: %.120s", v.device, len(c.answers),
		c.first.Format(time.StampMilli), v.lifeOf(c), i+1, len(v.changes), c.raws[0])
}

func (v *verdict) lifeOf(c *change) int {
	if len(c.answers) == 0 {
		return -1
	}
	return v.answers[c.answers[0]].Life
}

func (v *verdict) all(c *change, excused func(int) bool) bool {
	for _, i := range c.answers {
		if !excused(i) {
			return false
		}
	}
	return len(c.answers) > 0
}

// killed tells whether an answer was handed to a process that was killed in the
// next moment.
func (v *verdict) killed(i int) bool {
	a := v.answers[i]
	if a.Life < 0 || a.Life >= len(v.c.Lives) {
		return false
	}
	life := v.c.Lives[a.Life]
	if life.To.IsZero() || !life.Killed && !v.away(life.To) {
		return false
	}
	for _, later := range v.answers[i+1:] {
		if later.Life == a.Life {
			return false // it asked again: what it saw is stored
		}
	}
	return v.working(a.At, life.To, life.Pauses) <= v.c.Grace
}

// timedOut tells whether the process stood still until it had given up.
func (v *verdict) timedOut(i int) bool {
	a := v.answers[i]
	if a.Life < 0 || a.Life >= len(v.c.Lives) {
		return false
	}
	return slices.ContainsFunc(v.c.Lives[a.Life].Pauses, func(p Span) bool {
		// The request was sent before the answer was given: half the timeout
		// is for that.
		return p.From.Before(a.At.Add(time.Second)) && p.To.Sub(a.At) >= v.c.Timeout/2
	})
}

// taken tells whether the broker lost a change after it was stored.
func (v *verdict) taken(c *change) bool {
	return slices.ContainsFunc(v.c.Losses, func(l Loss) bool {
		if c.first.After(l.At) {
			return false
		}
		return l.All || !c.first.Before(l.Since) || v.working(c.first, l.Since, nil) <= v.c.Grace
	})
}

// unable gives the times in which nothing could be stored.
func (v *verdict) unable() []Span {
	spans := slices.Clone(v.c.Away)
	for i := range spans {
		if !spans[i].To.IsZero() {
			spans[i].To = spans[i].To.Add(reconnect)
		}
	}
	return spans
}

func (v *verdict) away(t time.Time) bool {
	return slices.ContainsFunc(v.unable(), func(s Span) bool { return s.covers(t) })
}

// working is how much of a time a process that stood still in the pauses could
// store something in.
func (v *verdict) working(from, to time.Time, pauses []Span) time.Duration {
	spans := append(v.unable(), pauses...)
	slices.SortFunc(spans, func(a, b Span) int { return a.From.Compare(b.From) })
	window := Span{from, to}
	idle := time.Duration(0)
	for _, s := range spans {
		idle += s.within(window)
		if end := s.To; !end.IsZero() && end.After(window.From) {
			window.From = end // what is counted is not counted again
		}
	}
	return to.Sub(from) - idle
}

// stale counts a device whose newest state the stream does not have last.
func (v *verdict) stale() {
	n := len(v.changes)
	if n == 0 {
		return
	}
	want, got := v.changes[n-1], ""
	if len(v.events) > 0 {
		got = key(v.events[len(v.events)-1].Raw)
	}
	if got != want.key && !v.all(&want, v.killed) {
		v.r.Stale++
		v.r.say("%s: the stream's last location is not the one shown last", v.device)
	}
}

// edge is an alert that a location raises or clears.
type edge struct{ state, dateTime string }

// edges compares the alert events with the locations in the stream.
func (v *verdict) edges() {
	want := map[string][]edge{}
	raised := map[string]bool{}
	for _, e := range v.events {
		var fix struct {
			DateTime string
			Alerts   []string
		}
		if err := json.Unmarshal([]byte(e.Raw), &fix); err != nil {
			continue // counted as different
		}
		for _, a := range fix.Alerts {
			if !raised[a] {
				want[a] = append(want[a], edge{"raised", fix.DateTime})
			}
			raised[a] = true
		}
		for a, is := range raised {
			if is && !slices.Contains(fix.Alerts, a) {
				want[a] = append(want[a], edge{"cleared", fix.DateTime})
				raised[a] = false
			}
		}
	}
	got := map[string][]edge{}
	for _, e := range v.alerts {
		got[e.Alert] = append(got[e.Alert], edge{e.State, e.DateTime})
	}
	for alert, list := range want {
		v.r.Edges += len(list)
		v.compareEdges(alert, list, got[alert])
	}
	for alert, list := range got {
		if want[alert] == nil {
			v.compareEdges(alert, nil, list)
		}
	}
}

func (v *verdict) compareEdges(alert string, want, got []edge) {
	next := 0
	for _, g := range got {
		i := slices.Index(want[next:], g)
		if i < 0 {
			v.r.EdgesWrong++
			v.r.say("%s: alert %s was %s at %s in the stream, by no location there", v.device, alert, g.state, g.dateTime)
			continue
		}
		v.r.EdgesLost += i
		for _, e := range want[next : next+i] {
			v.r.say("%s: alert %s was %s at %s by a location in the stream, which has no such event", v.device, alert, e.state, e.dateTime)
		}
		next += i + 1
	}
	v.r.EdgesLost += len(want) - next
	for _, e := range want[next:] {
		v.r.say("%s: alert %s was %s at %s by a location in the stream, which has no such event", v.device, alert, e.state, e.dateTime)
	}
}

// mostDetails bounds what a report says in words.
const mostDetails = 40

func (r *Report) say(format string, args ...any) {
	if len(r.Details) < mostDetails {
		r.Details = append(r.Details, fmt.Sprintf(format, args...))
	}
}
