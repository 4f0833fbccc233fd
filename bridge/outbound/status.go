package outbound

import (
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/track"
)

// DeviceStatus is the state of one device at one moment, for display.
type DeviceStatus struct {
	ID   string
	Name string // as the API's list has it
	// Gone: it is not polled here any more. Only the id is set.
	Gone bool
	// Busy: it is being polled, or its events are not stored yet. Only id and name
	// are set. When that is over it has changed.
	Busy bool

	Fix      bool      // the bridge knows a fix, to which the fields up to Alerts belong
	FixTime  time.Time // by the device's clock
	Seen     time.Time // when the bridge first saw it, by its own clock
	Lat, Lon float32   // degrees, WGS 84
	Speed    float32   // km/h, or the account's unit; NaN: absent
	Alerts   []string  // raised now, the bridge's own silent among them

	Polled   time.Time // when the last poll was over; zero: not yet
	Result   string    // of that poll, for people
	Detail   string    // its error, or empty
	Failures int       // polls in a row that failed
	Next     time.Time // when the next poll is due; zero: unknown
	Reason   string    // why then, one word
}

// statuses is the number of devices that are read while the fleet's mutex is held:
// some hundred microseconds.
const statuses = 64

// Changed calls f with each device that has changed, or was polled, since the
// last call, and the first time with every device. There may be only one caller.
// f runs on its goroutine and may block. A device that changes again meanwhile is
// among those of the next call.
func (p *Pool) Changed(f func(DeviceStatus)) { p.fleet.statuses(f) }

func (f *fleet) statuses(each func(DeviceStatus)) {
	list := f.takeChanged()
	seen := make([]DeviceStatus, 0, min(statuses, len(list)))
	for part := range slices.Chunk(list, statuses) {
		seen = seen[:0]
		now := time.Now()
		f.mu.Lock()
		for _, d := range part {
			d.marked = false
			seen = append(seen, f.statusLocked(now, d))
		}
		f.mu.Unlock()
		for _, s := range seen {
			each(s)
		}
	}
}

// takeChanged returns the devices that have changed. Until its first call none is
// remembered.
func (f *fleet) takeChanged() []*device {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.changes.watched {
		f.changes.watched = true
		for _, d := range f.byID {
			f.markLocked(d)
		}
	}
	list := f.changes.list
	f.changes.list = nil
	return list
}

// markLocked notes that a device has changed.
func (f *fleet) markLocked(d *device) {
	if f.changes.watched && !d.marked {
		d.marked = true
		f.changes.list = append(f.changes.list, d)
	}
}

func (f *fleet) statusLocked(now time.Time, d *device) DeviceStatus {
	s := DeviceStatus{ID: d.id, Name: d.name, Gone: !d.active, Busy: d.active && d.busy}
	if s.Gone || s.Busy {
		return s
	}
	if t := &d.track; t.Known {
		s.Fix, s.FixTime, s.Seen = true, t.Last.Time, t.SeenAt
		s.Lat, s.Lon, s.Speed = t.Last.Lat, t.Last.Lon, t.Last.Speed
		s.Alerts = slices.Clone(t.Raised)
		if t.Silent {
			s.Alerts = append(s.Alerts, track.SilentAlert)
		}
	}
	if last := d.log.last(); last != nil {
		s.Polled, s.Result, s.Detail = last.when(), last.result.String(), last.noted().detail
	}
	s.Failures = d.failures
	next, why := f.policy.Due(now, d.id)
	s.Next, s.Reason = next, why.String()
	if d.terms.paused {
		s.Reason = reasonPaused
	}
	return s
}
