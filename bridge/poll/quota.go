package poll

import "time"

// minHead is how many results a device may use ahead of an even spread over the
// day, where a quarter of its quota is less.
const minHead = 10

// quota counts the results that one device used on one UTC day.
type quota struct {
	day  int64 // days since 1970
	used int32
	from int32 // second of the day at which this process began to count
}

const secondsPerDay = 24 * 60 * 60

// add counts results.
func (q *quota) add(now time.Time, n int) {
	q.turn(now)
	q.used = int32(min(int64(q.used)+int64(n), 1<<30))
}

func (q *quota) turn(now time.Time) {
	seconds := now.Unix()
	day := seconds / secondsPerDay
	switch {
	case q.day == 0: // the first day is spread over what is left of it
		q.day, q.from = day, int32(seconds%secondsPerDay)
	case q.day != day:
		*q = quota{day: day}
	}
}

// left is how many results the day's quota still has.
func (q *quota) left(now time.Time, limit int) int {
	q.turn(now)
	return max(limit-int(q.used), 0)
}

// next is when the device may use another result, zero for at once: results are
// spread evenly over the day, with a head start of a quarter of them, so that a
// busy morning does not leave a device unseen in the evening.
func (q *quota) next(now time.Time, limit int) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	q.turn(now)
	midnight := time.Unix((q.day+1)*secondsPerDay, 0)
	if int(q.used) >= limit {
		return midnight
	}
	ahead := int64(q.used) + 1 - int64(max(limit/4, minHead))
	if ahead <= 0 {
		return time.Time{}
	}
	second := int64(q.from) + (ahead*secondsPerDay+int64(limit)-1)/int64(limit)
	at := time.Unix(q.day*secondsPerDay+second, 0)
	switch {
	case at.After(midnight):
		return midnight
	case at.After(now):
		return at
	}
	return time.Time{}
}
