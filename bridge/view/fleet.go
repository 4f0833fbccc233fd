package view

import (
	"math"
	"slices"
	"time"
	"unique"
)

// The parts of a row that have changed since the last frame.
const (
	changedName = 1 << iota
	changedFix
	changedPoll
)

// Trails are the positions of the last minutes.
const (
	trailAge    = 15 * time.Minute
	trailStep   = 15 * time.Second // least time between two spots, except for the newest
	trailPoints = 48               // most spots of a trail
)

// row is a device as the pages show it. Positions are in 1e-5 degrees, about a
// metre. Times are in Unix milliseconds; 0 means none.
type row struct {
	id, name string
	slot     int32 // its number in frames
	changes  uint8
	sent     bool // the pages know it

	fix, seen int64
	lat, lon  int32
	speed     int32 // tenths of km/h, or unknownSpeed
	failures  int32
	alerts    []string
	trail     []spot // oldest first

	polled, next int64
	outcome      unique.Handle[outcome]
}

// outcome is the result of the last poll and the reason for the next. Devices share the few that there are.
type outcome struct{ result, reason string }

const unknownSpeed = -1

type spot struct {
	at       int64
	lat, lon int32
}

// occurrence is an alert that was raised or cleared while the view ran.
type occurrence struct {
	At     int64  `json:"at"` // Unix milliseconds
	Slot   int32  `json:"slot"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Alert  string `json:"alert"`
	Raised bool   `json:"raised"`
}

// occurrences is the number of alerts that are kept.
const occurrences = 200

// fleet holds the devices that the pages show. The view's mutex guards it.
type fleet struct {
	rows    map[string]*row // by id
	slots   []*row          // nil means free
	free    []int32
	changed []*row
	gone    []int32      // slots that are free after the next frame
	events  []occurrence // the last ones, oldest first
	unsent  []occurrence // those of events that the next frame has
	// loaded means that every device was read once, so an alert that appears has
	// just been raised.
	loaded bool
}

func newFleet() *fleet { return &fleet{rows: make(map[string]*row)} }

// update records the state of a device.
func (f *fleet) update(now time.Time, d *Device) {
	r, known := f.rows[d.ID]
	switch {
	case d.Gone && known:
		f.remove(r)
		return
	case d.Gone:
		return
	case !known:
		r = &row{id: d.ID, slot: f.slot(), speed: unknownSpeed, outcome: unique.Make(outcome{})}
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
		f.updateFix(now, r, d, known)
	}
	polled, next := unixMilli(d.Polled), unixMilli(d.Next)
	failures, last := int32(d.Failures), outcome{d.Result, d.Reason}
	if same := r.outcome.Value() == last; !same || r.polled != polled || r.next != next || r.failures != failures {
		if !same {
			r.outcome = unique.Make(last)
		}
		r.polled, r.next, r.failures = polled, next, failures
		f.touch(r, changedPoll)
	}
}

func (f *fleet) updateFix(now time.Time, r *row, d *Device, known bool) {
	fix, seen := unixMilli(d.FixTime), unixMilli(d.Seen)
	lat, lon := int32(math.Round(float64(d.Lat)*1e5)), int32(math.Round(float64(d.Lon)*1e5))
	speed := int32(unknownSpeed)
	if d.Speed >= 0 && d.Speed < 1e6 {
		speed = int32(math.Round(float64(d.Speed) * 10))
	}
	if r.fix == 0 || r.lat != lat || r.lon != lon {
		r.extendTrail(now, spot{seen, lat, lon})
	}
	if !slices.Equal(r.alerts, d.Alerts) {
		f.updateAlerts(now, r, d.Alerts, known || f.loaded)
		r.alerts = d.Alerts
	} else if r.fix == fix && r.seen == seen && r.lat == lat && r.lon == lon && r.speed == speed {
		return
	}
	r.fix, r.seen, r.lat, r.lon, r.speed = fix, seen, lat, lon, speed
	f.touch(r, changedFix)
}

// extendTrail adds a position to the trail and removes old ones.
func (r *row) extendTrail(now time.Time, s spot) {
	if n := len(r.trail); n > 1 && r.trail[n-1].at-r.trail[n-2].at < trailStep.Milliseconds() {
		r.trail = r.trail[:n-1]
	}
	old := 0
	for oldest := unixMilli(now.Add(-trailAge)); old < len(r.trail) && (r.trail[old].at < oldest || len(r.trail)-old >= trailPoints); old++ {
	}
	r.trail = append(slices.Delete(r.trail, 0, old), s)
}

// updateAlerts records the alerts that were raised and cleared, if the earlier ones
// are known.
func (f *fleet) updateAlerts(now time.Time, r *row, alerts []string, known bool) {
	if !known {
		return
	}
	note := func(alert string, raised bool) {
		o := occurrence{At: now.UnixMilli(), Slot: r.slot, ID: r.id, Name: r.name, Alert: alert, Raised: raised}
		f.unsent = append(f.unsent, o)
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
	f.unsent = slices.Delete(f.unsent, 0, max(len(f.unsent)-occurrences, 0))
}

func (f *fleet) slot() int32 {
	if n := len(f.free); n > 0 {
		slot := f.free[n-1]
		f.free = f.free[:n-1]
		return slot
	}
	f.slots = append(f.slots, nil)
	return int32(len(f.slots) - 1)
}

func (f *fleet) remove(r *row) {
	delete(f.rows, r.id)
	f.slots[r.slot] = nil
	if r.sent {
		f.gone = append(f.gone, r.slot)
	} else {
		f.free = append(f.free, r.slot)
	}
	r.changes = 0
}

func (f *fleet) touch(r *row, parts uint8) {
	if r.changes == 0 {
		f.changed = append(f.changed, r)
	}
	r.changes |= parts
}

// markSent clears the changes after a frame has been written.
func (f *fleet) markSent() {
	for _, r := range f.changed {
		r.changes, r.sent = 0, true
	}
	f.free = append(f.free, f.gone...)
	f.changed, f.gone, f.unsent = f.changed[:0], f.gone[:0], f.unsent[:0]
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
