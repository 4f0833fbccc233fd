package account

import (
	"slices"
	"time"

	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/route"
)

// Accept stores a valid post, unless its key is known, and returns the answer's
// body. The function makes it from the entries in the post's range, a JSON array,
// and their number. It must not call the account.
func (d *Device) Accept(p *Submission, taken Post, answer func(entries []byte, n int) []byte) (body []byte) {
	key := taken.Endpoint + " " + taken.Key
	d.mu.Lock()
	defer d.mu.Unlock()
	body, taken.Repeated = d.replies.seen[key]
	if d.opts.Record > 0 {
		d.taken = appendBounded(d.taken, taken, d.opts.Record)
	}
	if taken.Repeated {
		return body
	}
	d.accepted++
	entries, n := d.takeLocked(p, taken.At)
	d.usage.add(taken.At, n)
	body = answer(entries, n)
	if d.opts.Idempotent && taken.Key != "" {
		d.replies.add(key, body, d.opts.History)
	}
	return body
}

// raised is an alert that was posted.
type raised struct {
	at   time.Time
	name string
}

// takeLocked stores the entries of a post and returns the entries in its range,
// as a JSON array, and their number.
func (d *Device) takeLocked(p *Submission, now time.Time) (entries []byte, n int) {
	if p.endpoint == route.Alerts {
		if p.alert != "" && p.from.Equal(p.to) {
			d.raised = appendBounded(d.raised, raised{p.from, p.alert}, d.opts.History)
		}
		return d.alertsLocked(p, now)
	}
	if p.location != nil {
		d.archive.post(p.at, p.location, d.opts.History)
	}
	return d.locationsLocked(p, now)
}

// locationsLocked returns the fixes and posted locations in the range, by their
// own times. Fixes that are not visible yet are not among them.
func (d *Device) locationsLocked(p *Submission, now time.Time) (list []byte, n int) {
	list = []byte{'['}
	appendOne := func(raw []byte, hole int) {
		if n++; n > 1 {
			list = append(list, ',')
		}
		if hole < 0 {
			list = append(list, raw...)
			return
		}
		list = append(list, raw[:hole]...)
		list = append(list, '0') // inactiveSeconds, when it was measured
		list = append(list, raw[hole:]...)
	}
	others := d.archive.list
	appendUntil := func(t time.Time, including bool) {
		for len(others) > 0 && (others[0].at.Before(t) || including && others[0].at.Equal(t)) {
			if !others[0].at.Before(p.from) {
				appendOne(others[0].raw, -1)
			}
			others = others[1:]
		}
	}
	var buf []byte
	d.historyLocked(now, func(f *fleet.Fix) {
		at := f.Time()
		if at.Before(p.from) || at.After(p.to) {
			return
		}
		appendUntil(at, false)
		var hole int
		buf, hole = f.AppendJSON(buf[:0])
		appendOne(buf, hole)
	})
	appendUntil(p.to, true)
	return append(list, ']'), n
}

// historyLocked calls f with the vehicle's own reports, up to a pin.
func (d *Device) historyLocked(now time.Time, f func(*fleet.Fix)) {
	if d.pin.on() {
		now = d.pin.since
	}
	d.fleet.History(now, f)
}

// alertsLocked returns the alerts in the range: those that were posted, and each
// that a fix has and the fix before has not.
func (d *Device) alertsLocked(p *Submission, now time.Time) (list []byte, n int) {
	type alert struct {
		DateTime      string   `json:"dateTime"`
		Latitude      float64  `json:"latitude"`
		Longitude     float64  `json:"longitude"`
		Text          string   `json:"text"`
		Notifications []string `json:"notifications"`
		Alerts        []string `json:"alerts"`
		at            time.Time
	}
	all := []alert{}
	add := func(f *fleet.Fix, at time.Time, text, name string) {
		if at.Before(p.from) || at.After(p.to) || p.alert != "" && p.alert != name {
			return
		}
		lat, lon := f.Position()
		all = append(all, alert{
			at.UTC().Format("2006-01-02T15:04:05.000Z"), lat, lon, text,
			[]string{"operator@example.com"}, []string{name}, at,
		})
	}
	var before fleet.Alert
	var last fleet.Fix
	d.historyLocked(now, func(f *fleet.Fix) {
		(f.Alerts() &^ before).Each(func(a fleet.Alert) { add(f, f.Time(), f.Text(a), a.String()) })
		before, last = f.Alerts(), *f
	})
	for _, r := range d.raised {
		add(&last, r.at, r.name, r.name)
	}
	slices.SortStableFunc(all, func(a, b alert) int { return a.at.Compare(b.at) })
	return mustJSON(all), len(all)
}
