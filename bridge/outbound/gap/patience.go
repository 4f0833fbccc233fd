package gap

import (
	"sync"
	"time"
)

// Patience is how the gaps of one device fared lately. The zero Patience is that
// of a device without trouble.
type Patience struct{ trouble *trouble }

// trouble lasts from the first request of a device that failed to the next one
// that did not.
type trouble struct {
	since   time.Time
	without bool      // its fixes are published without their gaps
	next    time.Time // then: when the API is asked again
	wait    time.Duration
}

// without reports whether the fix is to be published without its gap.
func (p *Patience) without(now time.Time) bool {
	t := p.trouble
	return t != nil && t.without && now.Before(t.next)
}

// failed notes a failure at now of a request that began at began. give is true if
// the fix is to be published without its gap, because the failure is final or
// has lasted too long.
func (p *Patience) failed(began, now time.Time, final bool, o *Options) (give bool) {
	if p.trouble == nil {
		p.trouble = &trouble{since: now}
	}
	t := p.trouble
	if !final && !t.without && now.Sub(t.since) < o.Patience {
		return false
	}
	t.without = true
	if final {
		t.wait = min(max(2*t.wait, o.BackoffInitial), max(o.BackoffMax, longestRest))
	} else { // an API that took long to fail is left alone for longer
		t.wait = min(10*now.Sub(began), o.BackoffMax)
	}
	t.next = now.Add(t.wait)
	return true
}

// longestRest is the longest time for which requests that the API refuses for
// good are not sent.
const longestRest = time.Hour

// rest keeps requests of one kind back, for all devices, after the API has
// refused one for good. It is safe for concurrent use.
type rest struct {
	mu    sync.Mutex
	until time.Time
	wait  time.Duration
}

// over reports whether requests may be sent.
func (r *rest) over(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !now.Before(r.until)
}

// refused notes that the API refused a request for good.
func (r *rest) refused(now time.Time, o *Options) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = min(max(2*r.wait, o.BackoffInitial), max(o.BackoffMax, longestRest))
	r.until = now.Add(r.wait)
}

// answered notes that the API answered a request.
func (r *rest) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until, r.wait = time.Time{}, 0
}
