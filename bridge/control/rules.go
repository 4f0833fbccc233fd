package control

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Item is one key of the bucket as it is stored.
type Item struct {
	Key      string
	Value    []byte
	Revision uint64
	Written  time.Time
}

// Named is an entry with its place in the bucket.
type Named struct {
	Entry
	Key     string
	Written time.Time
}

// Unreadable is a key with a value that cannot be read.
type Unreadable struct {
	Key      string
	Revision uint64
	Reason   string
}

// Rules are the entries in force at one moment. They do not change, and are safe
// for concurrent use. The zero value has no entries.
type Rules struct {
	devices    map[string]*Named // by the device's token
	groups     map[string]*Named // by the token of an id or a name
	fleet      *Named
	ends       time.Time // when the first of them ends; zero means never
	unreadable []Unreadable
}

// NewRules reads the items of the bucket. now decides which entries have ended.
func NewRules(now time.Time, items []Item) *Rules {
	r := &Rules{devices: make(map[string]*Named), groups: make(map[string]*Named)}
	for i := range items {
		item := &items[i]
		entry, err := Parse(item.Key, item.Value)
		if err != nil {
			r.unreadable = append(r.unreadable, Unreadable{item.Key, item.Revision, err.Error()})
			continue
		}
		if !entry.Until.IsZero() {
			if !entry.Until.After(now) {
				continue
			}
			if r.ends.IsZero() || entry.Until.Before(r.ends) {
				r.ends = entry.Until
			}
		}
		r.add(&Named{entry, item.Key, item.Written})
	}
	return r
}

func (r *Rules) add(n *Named) {
	switch token, device := strings.CutPrefix(n.Key, devicePrefix); {
	case n.Key == FleetKey:
		r.fleet = n
	case device:
		r.devices[token] = n
	default:
		r.groups[strings.TrimPrefix(n.Key, groupPrefix)] = n
	}
}

// Len returns the number of entries in force.
func (r *Rules) Len() int {
	n := len(r.devices) + len(r.groups)
	if r.fleet != nil {
		n++
	}
	return n
}

// Unreadable lists the keys with values that cannot be read.
func (r *Rules) Unreadable() []Unreadable { return r.unreadable }

// Groups reports whether an entry is about a group, so that the members of groups
// have to be known.
func (r *Rules) Groups() bool { return len(r.groups) > 0 }

// Ends returns when the first entry ends; zero means never.
func (r *Rules) Ends() time.Time { return r.ends }

// Fleet returns the entry of the fleet, or nil.
func (r *Rules) Fleet() *Named { return r.fleet }

// Terms are the settings of one device, each with the entry that it is from. The
// entry is nil, and the setting zero, if no entry sets it.
type Terms struct {
	Interval time.Duration
	Weight   float64
	Paused   bool

	IntervalFrom, WeightFrom, PausedFrom *Named

	fleet *Named // the entry that limits the rate or chooses the devices; nil if there is none
}

// Set reports whether an entry decides a setting of the device.
func (t *Terms) Set() bool {
	return t.IntervalFrom != nil || t.WeightFrom != nil || t.PausedFrom != nil
}

// Device returns the settings of a device by its token. groups are the tokens of
// the ids and names of its groups, sorted. If two of its groups set a field, the
// first of them decides.
func (r *Rules) Device(token string, groups []string) Terms {
	var t Terms
	if n := r.devices[token]; n != nil {
		t.fill(n)
	}
	if len(r.groups) > 0 {
		for _, group := range groups {
			if n := r.groups[group]; n != nil {
				t.fill(n)
			}
		}
	}
	if r.fleet != nil {
		t.fill(r.fleet)
		if r.fleet.RateLimit > 0 || r.fleet.Devices != nil || r.fleet.Exclude != nil {
			t.fleet = r.fleet
		}
	}
	return t
}

// fill takes the fields over that are not set yet.
func (t *Terms) fill(n *Named) {
	if t.IntervalFrom == nil && n.Interval > 0 {
		t.Interval, t.IntervalFrom = n.Interval, n
	}
	if t.WeightFrom == nil && n.Weight > 0 {
		t.Weight, t.WeightFrom = n.Weight, n
	}
	if t.PausedFrom == nil && n.Paused != nil {
		t.Paused, t.PausedFrom = *n.Paused, n
	}
}

// All lists the entries in force, those of devices first and that of the fleet last.
func (r *Rules) All() []*Named {
	list := slices.Collect(maps.Values(r.devices))
	list = slices.AppendSeq(list, maps.Values(r.groups))
	if r.fleet != nil {
		list = append(list, r.fleet)
	}
	slices.SortFunc(list, func(a, b *Named) int {
		return cmp.Or(rank(a.Key)-rank(b.Key), strings.Compare(a.Key, b.Key))
	})
	return list
}

// Need returns the polls a minute that the intervals of single devices need, and the
// requests a minute that are permitted with a limit of the environment; 0 means no
// limit. The members of groups are not known here.
func (r *Rules) Need(limit int) (polls float64, permitted int) {
	for token := range r.devices {
		if t := r.Device(token, nil); t.Interval > 0 && !t.Paused {
			polls += float64(time.Minute) / float64(t.Interval)
		}
	}
	if r.fleet != nil && r.fleet.RateLimit > 0 && (limit == 0 || r.fleet.RateLimit < limit) {
		limit = r.fleet.RateLimit
	}
	return polls, limit
}

// Effect is what one entry sets for a device, as JSON. The last three are of the
// fleet's entry.
type Effect struct {
	Entry     string     `json:"entry"` // its key
	Interval  string     `json:"interval,omitempty"`
	Weight    float64    `json:"weight,omitempty"`
	Paused    *bool      `json:"paused,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
	SetBy     string     `json:"setBy,omitempty"`
	SetAt     time.Time  `json:"setAt"`
	RateLimit int        `json:"rateLimit,omitempty"`
	Devices   []string   `json:"devices,omitempty"`
	Exclude   []string   `json:"devicesExclude,omitempty"`
}

// Effects lists the entries that decide a setting of the device or limit its polls,
// the most particular one first; nil if there are none.
func (t Terms) Effects() []Effect {
	var list []Effect
	of := func(n *Named) *Effect {
		for i := range list {
			if list[i].Entry == n.Key {
				return &list[i]
			}
		}
		e := Effect{Entry: n.Key, SetBy: n.SetBy, SetAt: n.Written.UTC()}
		if !n.Until.IsZero() {
			until := n.Until.UTC()
			e.Until = &until
		}
		list = append(list, e)
		return &list[len(list)-1]
	}
	if t.PausedFrom != nil {
		of(t.PausedFrom).Paused = &t.Paused
	}
	if t.IntervalFrom != nil {
		of(t.IntervalFrom).Interval = t.Interval.String()
	}
	if t.WeightFrom != nil {
		of(t.WeightFrom).Weight = t.Weight
	}
	if n := t.fleet; n != nil {
		e := of(n)
		e.RateLimit, e.Devices, e.Exclude = n.RateLimit, n.Devices, n.Exclude
	}
	slices.SortStableFunc(list, func(a, b Effect) int { return rank(a.Entry) - rank(b.Entry) })
	return list
}

// rank orders keys: devices, groups, the fleet.
func rank(key string) int {
	switch {
	case strings.HasPrefix(key, devicePrefix):
		return 0
	case strings.HasPrefix(key, groupPrefix):
		return 1
	default:
		return 2
	}
}
