package view

import (
	"math"
	"slices"
	"time"
)

// What of a row is not told yet.
const (
	changedName = 1 << iota
	changedFix
	changedPoll
)

// Trails are the positions of the last minutes.
const (
	trailAge    = 15 * time.Minute
	trailStep   = 15 * time.Second // between two spots, at least; but for the newest
	trailPoints = 48               // kept of them, at most
)

// row is what the pages have of one device. Positions are in 1e-5 degrees, about
// a metre; times in Unix milliseconds, 0 for none.
type row struct {
	slot     int // its number in frames
	id, name string
	changes  uint8
	told     bool // the pages know of it

	fix, seen int64
	lat, lon  int32
	speed     int32 // tenths; unknownSpeed: not told
	alerts    []string
	trail     []spot // oldest first

	polled, next   int64
	result, reason string
	failures       int
}

const unknownSpeed = -1

type spot struct {
	at       int64
	lat, lon int32
}

// occurrence is an alert that was raised or cleared while the view looked on.
type occurrence struct {
	At     int64  `json:"at"` // Unix milliseconds
	Slot   int    `json:"slot"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Alert  string `json:"alert"`
	Raised bool   `json:"raised"`
}

// occurrences is how many alerts are remembered.
const occurrences = 200

// fleet is what the pages are told of the devices. It is guarded by the hub's
// mutex.
type fleet struct {
	rows    map[string]*row // by id
	slots   []*row          // nil: free
	free    []int
	changed []*row
	gone    []int        // slots; they are free once that is told
	events  []occurrence // the last ones, oldest first
	news    []occurrence // of those, not told yet
	// settled: every device was told of once, so that an alert that appears was
	// raised just now.
	settled bool
}

func newFleet() *fleet { return &fleet{rows: make(map[string]*row)} }

// take notes what a source tells of a device.
func (f *fleet) take(now time.Time, d *Device) {
	r, known := f.rows[d.ID]
	switch {
	case d.Gone && known:
		f.remove(r)
		return
	case d.Gone:
		return
	case !known:
		r = &row{id: d.ID, slot: f.slot(), speed: unknownSpeed}
		f.rows[d.ID], f.slots[r.slot] = r, r
		f.touch(r, changedName)
	}
	if r.name != d.Name {
		r.name = d.Name
		f.touch(r, changedName)
	}
	if d.Busy {
		return
	}
	if d.Fix {
		f.takeFix(now, r, d, known)
	}
	polled, next := unixMilli(d.Polled), unixMilli(d.Next)
	if r.polled != polled || r.next != next || r.result != d.Result || r.reason != d.Reason || r.failures != d.Failures {
		r.polled, r.next, r.result, r.reason, r.failures = polled, next, d.Result, d.Reason, d.Failures
		f.touch(r, changedPoll)
	}
}

func (f *fleet) takeFix(now time.Time, r *row, d *Device, known bool) {
	fix, seen := unixMilli(d.FixTime), unixMilli(d.Seen)
	lat, lon := int32(math.Round(float64(d.Lat)*1e5)), int32(math.Round(float64(d.Lon)*1e5))
	speed := int32(unknownSpeed)
	if d.Speed >= 0 && d.Speed < 1e6 {
		speed = int32(math.Round(float64(d.Speed) * 10))
	}
	if r.fix == 0 || r.lat != lat || r.lon != lon {
		r.walk(now, spot{seen, lat, lon})
	}
	if !slices.Equal(r.alerts, d.Alerts) {
		f.alerts(now, r, d.Alerts, known || f.settled)
		r.alerts = d.Alerts
	} else if r.fix == fix && r.seen == seen && r.lat == lat && r.lon == lon && r.speed == speed {
		return
	}
	r.fix, r.seen, r.lat, r.lon, r.speed = fix, seen, lat, lon, speed
	f.touch(r, changedFix)
}

// walk adds a position to the trail and forgets what is too old.
func (r *row) walk(now time.Time, s spot) {
	if n := len(r.trail); n > 1 && r.trail[n-1].at-r.trail[n-2].at < trailStep.Milliseconds() {
		r.trail = r.trail[:n-1]
	}
	old := 0
	for oldest := unixMilli(now.Add(-trailAge)); old < len(r.trail) && (r.trail[old].at < oldest || len(r.trail)-old >= trailPoints); old++ {
	}
	r.trail = append(slices.Delete(r.trail, 0, old), s)
}

// alerts notes what appeared and what went.
func (f *fleet) alerts(now time.Time, r *row, alerts []string, told bool) {
	if !told {
		return
	}
	note := func(alert string, raised bool) {
		o := occurrence{At: now.UnixMilli(), Slot: r.slot, ID: r.id, Name: r.name, Alert: alert, Raised: raised}
		f.news = append(f.news, o)
		f.events = append(f.events, o)
	}
	for _, a := range alerts {
		if !slices.Contains(r.alerts, a) {
			note(a, true)
		}
	}
	for _, a := range r.alerts {
		if !slices.Contains(alerts, a) {
			note(a, false)
		}
	}
	f.events = slices.Delete(f.events, 0, max(len(f.events)-occurrences, 0))
	f.news = slices.Delete(f.news, 0, max(len(f.news)-occurrences, 0))
}

func (f *fleet) slot() int {
	if n := len(f.free); n > 0 {
		slot := f.free[n-1]
		f.free = f.free[:n-1]
		return slot
	}
	f.slots = append(f.slots, nil)
	return len(f.slots) - 1
}

func (f *fleet) remove(r *row) {
	delete(f.rows, r.id)
	f.slots[r.slot] = nil
	if r.told {
		f.gone = append(f.gone, r.slot)
	} else {
		f.free = append(f.free, r.slot)
	}
	r.changes = 0
}

func (f *fleet) touch(r *row, what uint8) {
	if r.changes == 0 {
		f.changed = append(f.changed, r)
	}
	r.changes |= what
}

// told forgets what was to be told.
func (f *fleet) told() {
	for _, r := range f.changed {
		r.changes, r.told = 0, true
	}
	f.free = append(f.free, f.gone...)
	f.changed, f.gone, f.news = f.changed[:0], f.gone[:0], f.news[:0]
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
