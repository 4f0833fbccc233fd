package judge

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// change is a run of answers with the same content.
type change struct {
	key     string
	answers []int // indexes into the device's answers
	raws    []string
	first   time.Time
	present bool // in the stream
}

// verdict is the part of the report that one device adds.
type verdict struct {
	c       *Case
	r       *Report
	device  string
	answers []Answer
	changes []change
	events  []Event // locations
	alerts  []Event
	paused  map[pause]int // number of changes that each pause excused, for all devices
}

// Outbound compares the answers of the API with the events in the stream.
func Outbound(c Case) Report {
	var r Report
	byDevice := map[string]*verdict{}
	paused := map[pause]int{}
	of := func(device string) *verdict {
		v := byDevice[device]
		if v == nil {
			v = &verdict{c: &c, r: &r, device: device, answers: c.Shown[device], paused: paused}
			byDevice[device] = v
		}
		return v
	}
	for device := range c.Shown {
		of(device)
	}
	c.Losses = slices.Clone(c.Losses)
	for i := range c.Losses {
		l := &c.Losses[i]
		l.Held = slices.Clone(l.Held)
		for j := range l.Held {
			l.Held[j].key = key(l.Held[j].Raw)
		}
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

// judge adds the counts of the device to the report.
func (v *verdict) judge() {
	v.collapse()
	if v.c.History != nil {
		v.fillIn()
	}
	v.r.Answers += len(v.answers)
	v.r.Shown += len(v.changes)
	v.r.Published += len(v.events)
	for _, l := range v.c.Losses { // events that the broker lost had to be right too
		v.match(slices.DeleteFunc(slices.Clone(l.Held), func(e Event) bool { return e.Kind != "location" || e.Device != v.device }))
	}
	for i := range v.changes {
		v.changes[i].present = false
	}
	v.match(v.events)
	for i := range v.changes {
		v.missing(i)
	}
	v.stale()
	v.edges()
	v.besides()
}

var inactive = regexp.MustCompile(`"inactiveSeconds":\d+`)

// key is the content of a location. Two locations with the same key are the same.
func key(raw string) string { return inactive.ReplaceAllLiteralString(raw, "") }

// collapse turns consecutive answers with the same content into changes.
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

// fillIn inserts the locations that the API keeps and did not show between the changes
// that it showed. With back-fill they have to be published as well.
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

// match finds the changes in the stream and counts the events that are no new change.
func (v *verdict) match(events []Event) {
	where := map[string][]int{}
	for i, c := range v.changes {
		where[c.key] = append(where[c.key], i)
	}
	next, before := 0, ""
	for _, e := range events {
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

// missing counts a change that is not in the stream, as lost or by its excuse.
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
	case v.unread(c):
		v.r.TimedOut++
		return
	case v.all(c, func(i int) bool { return v.killed(i) || v.overtaken(i) }):
		v.r.Overtaken++
		return
	}
	v.r.Lost++
	v.r.say("%s: lost what was shown %d times, change %d of %d: %.120s%s", v.device, len(c.answers), i+1, len(v.changes), c.raws[0], v.around(c))
}

// around describes the answers that showed a change and the next few, each with the
// faults of the bridge that asked.
func (v *verdict) around(c *change) string {
	const after = 4
	var b strings.Builder
	for _, first := range c.answers {
		for i := first; i < min(first+1+after, len(v.answers)); i++ {
			a := v.answers[i]
			life, ok := v.life(i)
			if !ok {
				continue
			}
			fmt.Fprintf(&b, "\n    answered at %s to life %d, %s", a.At.Format(stamp), a.Life, near(life, a.At, v.c.Away))
		}
	}
	return b.String()
}

// all reports whether every answer that showed a change is excused.
func (v *verdict) all(c *change, excused func(int) bool) bool {
	for _, i := range c.answers {
		if !excused(i) {
			return false
		}
	}
	return len(c.answers) > 0
}

// stale counts a device if its newest state is not the last one in the stream.
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
