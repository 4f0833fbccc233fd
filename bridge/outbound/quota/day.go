package quota

import "time"

const secondsPerDay = 24 * 60 * 60

// minHead is the smallest head start: so many results a device may use ahead of
// an even spread, if a quarter of its quota is less.
const minHead = 10

// Reservation is the reserved part of a device's daily quota, as a [Store] keeps
// it. Day is -1 if the stored value is malformed.
type Reservation struct {
	Day      int `json:"day"`      // days since 1970, UTC
	From     int `json:"from"`     // second of the day at which counting began
	Reserved int `json:"reserved"` // results, counted from the start of the day
}

func (r Reservation) valid() bool {
	return r.Day > 0 && r.From >= 0 && r.From < secondsPerDay && r.Reserved >= 0
}

// Day counts the results that one device has used on one UTC day. The zero Day
// has counted nothing yet. It is not safe for concurrent use.
type Day struct {
	day      int32  // days since 1970
	from     int32  // second of the day at which counting began
	used     int32  // results used by this process, or reserved by others
	held     int32  // results reserved in the store, used ones included
	revision uint64 // of the reservation as last read or written; 0 means none
}

// Add counts n results.
func (d *Day) Add(now time.Time, n int) {
	d.turn(now)
	d.used = int32(min(int64(d.used)+int64(n), 1<<30))
}

// Left returns how many results of the day's limit are not used yet.
func (d *Day) Left(now time.Time, limit int) int {
	d.turn(now)
	return max(limit-int(d.used), 0)
}

// Next returns when the device may use another result; the zero time means now.
// It is never later than the end of the day after now.
func (d *Day) Next(now time.Time, limit int) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	d.turn(now)
	midnight := time.Unix((int64(d.day)+1)*secondsPerDay, 0)
	if int(d.used) >= limit {
		return midnight
	}
	ahead := int64(d.used) + 1 - head(limit)
	if ahead <= 0 {
		return time.Time{}
	}
	second := int64(d.from) + (ahead*secondsPerDay+int64(limit)-1)/int64(limit)
	at := time.Unix(int64(d.day)*secondsPerDay+second, 0)
	switch {
	case at.After(midnight):
		return midnight
	case at.After(now):
		return at
	}
	return time.Time{}
}

// turn starts the count of another day.
func (d *Day) turn(now time.Time) {
	today, second := split(now)
	switch {
	case d.day == 0:
		// The first day is spread over the rest of it.
		d.day, d.from = today, second
	case d.day < today:
		*d = Day{day: today, revision: d.revision}
	case d.day > today+1:
		// The clock was wrong and has been set back. The results were used all
		// the same, but their reservation names a day that is far away.
		*d = Day{day: today, from: second, used: d.used, revision: d.revision}
	}
	// A count of tomorrow stays: a replica whose clock is ahead has started it.
}

// reserved returns the reservation to store for a total of n results.
func (d *Day) reserved(n int) Reservation {
	return Reservation{Day: int(d.day), From: int(d.from), Reserved: n}
}

// adopt takes over a reservation that was read from the store. If another
// process wrote it, all of it counts as used: what is left of this process's
// own reservation cannot be distinguished from it. Revision 0 means that the store
// has no reservation.
func (d *Day) adopt(now time.Time, limit int, r Reservation, revision uint64) {
	if revision == d.revision && revision != 0 {
		return // this process wrote it
	}
	first := d.day == 0
	d.turn(now)
	d.revision = revision
	if revision == 0 { // deleted
		d.held = d.used
		return
	}
	unreserved := max(d.used-d.held, 0)
	today, second := split(now)
	if !r.valid() || r.Day > int(today)+1 {
		// The value is not the bridge's, or its writer's clock was wrong. By now
		// the even spread has allowed at most so many.
		allowed := head(limit) + int64(limit)*int64(second)/secondsPerDay
		r = Reservation{Day: int(today), Reserved: int(min(int64(limit), allowed))}
	}
	switch {
	case r.Day < int(d.day):
		d.held = d.used
		return
	case r.Day > int(d.day): // the clock of its writer is ahead
		d.day, unreserved = int32(r.Day), 0
	}
	if first || r.From < int(d.from) {
		d.from = int32(r.From)
	}
	d.held = int32(min(r.Reserved, 1<<29))
	d.used = max(d.used, d.held+unreserved)
}

// head returns how many results may be used ahead of the even spread.
func head(limit int) int64 { return int64(max(limit/4, minHead)) }

// split returns the day since 1970 and the second of that day, both in UTC.
func split(t time.Time) (day, second int32) {
	unix := t.Unix()
	return int32(unix / secondsPerDay), int32(unix % secondsPerDay)
}
