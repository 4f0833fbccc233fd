package plaspy

import (
	"sync"
	"time"
)

// DailyQuota counts the results (a location or an alert in an answer) that each device has used in the current
// UTC day, against the API's daily limit. It holds one counter for each device used today. It is safe for
// concurrent use. It knows nothing of what was used before the process started.
type DailyQuota struct {
	limit int

	mu   sync.Mutex
	day  int64 // days since 1970 that used belongs to
	used map[string]int
}

// NewDailyQuota returns a quota of limit results per device and UTC day; 0 means no limit.
func NewDailyQuota(limit int) *DailyQuota {
	return &DailyQuota{limit: limit, used: map[string]int{}}
}

// Allow reports whether the device may use n more results on now's day. It reserves nothing.
func (q *DailyQuota) Allow(device string, now time.Time, n int) bool {
	if q.limit <= 0 {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turn(now)
	return q.used[device]+n <= q.limit
}

// Add notes n results that the device has used. An answer may bring more than was expected, so the sum may
// pass the limit.
func (q *DailyQuota) Add(device string, now time.Time, n int) {
	if q.limit <= 0 || n <= 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turn(now)
	q.used[device] += n
}

// Exhausted returns, for a device with nothing left on now's day, the UTC midnight when it has again, and
// otherwise false.
func (q *DailyQuota) Exhausted(device string, now time.Time) (until time.Time, exhausted bool) {
	if q.Allow(device, now, 1) {
		return time.Time{}, false
	}
	y, m, d := now.UTC().Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC), true
}

// turn forgets the day before. A clock that goes back does not: that would grant a day's results twice.
func (q *DailyQuota) turn(now time.Time) {
	const day = 24 * 60 * 60
	if today := now.Unix() / day; today > q.day {
		q.day = today
		clear(q.used)
	}
}
