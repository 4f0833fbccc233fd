package publisher

import (
	"fmt"
	"sync"
	"time"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// retries are the flights whose event is to be sent again. The delay is each
// flight's own; one that failed for a reason that all share is sent again as soon
// as the stream answers.
type retries struct {
	list   []*flight
	failed int // failures since the stream last answered
}

// add plans the next try of a flight.
func (r *retries) add(f *flight, now time.Time) {
	if f.failed == 0 {
		f.since = now
	}
	f.failed++
	f.due = now.Add(min(minRetry<<min(f.failed-1, 10), maxRetry))
	r.failed++
	r.list = append(r.list, f)
}

// answered notes that the stream answers.
func (r *retries) answered(now time.Time) {
	if r.failed == 0 {
		return
	}
	r.failed = 0
	for _, f := range r.list {
		if f.refused == 0 {
			f.due = now
			f.failed = min(f.failed, 1)
		}
	}
}

// next returns how long to wait until a flight is due. ok is false if none is.
func (r *retries) next(now time.Time) (wait time.Duration, ok bool) {
	for i, f := range r.list {
		if d := f.due.Sub(now); i == 0 || d < wait {
			wait = d
		}
	}
	return max(wait, 0), len(r.list) > 0
}

// take removes the flights that are due.
func (r *retries) take(now time.Time) (due []*flight) {
	left := r.list[:0]
	for _, f := range r.list {
		if f.due.After(now) {
			left = append(left, f)
		} else {
			due = append(due, f)
		}
	}
	clear(r.list[len(left):])
	r.list = left
	return due
}

// unstorable counts the events that can never be stored, for the health of the
// bridge. It is safe for concurrent use.
type unstorable struct {
	mu       sync.Mutex
	ever     bool              // a location was stored since the start
	subjects map[string]string // of locations that were refused since one was stored, with the reason
	logged   map[string]uint64 // hash of the last refused event of a subject that was logged
}

const (
	// manyRefused is how many devices' locations are refused in a row before it
	// is the stream that counts as unfit, and not the events.
	manyRefused = 3
	maxLogged   = 10_000
)

func (u *unstorable) stored(e *Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.logged, e.Subject)
	if e.kind == kindLocation {
		u.ever = true
		clear(u.subjects)
	}
}

// refused notes an event and reports whether it is to be logged: the same event is
// logged once.
func (u *unstorable) refused(e *Event, err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.kind == kindLocation && len(u.subjects) < manyRefused {
		if u.subjects == nil {
			u.subjects = make(map[string]string)
		}
		u.subjects[e.Subject] = reason(err)
	}
	if hash, known := u.logged[e.Subject]; known && hash == e.content {
		return false
	}
	if u.logged == nil || len(u.logged) >= maxLogged {
		u.logged = make(map[string]uint64)
	}
	u.logged[e.Subject] = e.content
	return true
}

// state returns why no location can be stored at all, or else why some cannot.
func (u *unstorable) state() (down, degraded string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for subject, why := range u.subjects {
		if !u.ever || len(u.subjects) >= manyRefused {
			return fmt.Sprintf("locations cannot be stored: the one for %s was refused (%s)", subject, why), ""
		}
		return "", fmt.Sprintf("the location for %s cannot be stored (%s)", subject, why)
	}
	return "", ""
}
