package gap

import (
	"sync"
	"time"
)

// Patience is the record of the failed gap requests of one device. The zero value is that
// of a device without failures.
type Patience struct{ trouble *trouble }

// trouble lasts from the first request of a device that failed to the next one
// that did not.
type trouble struct {
	since   time.Time
	without bool          // fixes are published without their gaps
	next    time.Time     // if without is set, when the API is asked again
	wait    time.Duration // before that
}

// without reports whether a fix should be published without its gap.
func (p *Patience) without(now time.Time) bool {
	t := p.trouble
	return t != nil && t.without && now.Before(t.next)
}

// failed notes a failure at now of a request that began at began. give is true if
// the fix should be published without its gap, because the failure is final or
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
		t.wait = o.longer(t.wait)
	} else { // an API that took long to fail is left alone for longer
		t.wait = min(10*now.Sub(began), o.BackoffMax)
	}
	t.next = now.Add(t.wait)
	return true
}

// longestPause is the longest time for which requests that the API refuses for
// good are not sent.
const longestPause = time.Hour

// longer returns the pause after one that was too short.
func (o *Options) longer(pause time.Duration) time.Duration {
	return min(max(2*pause, o.BackoffInitial), max(o.BackoffMax, longestPause))
}

// pause holds back the requests of one kind, for all devices, after the API has
// refused one for good. It is safe for concurrent use.
type pause struct {
	mu    sync.Mutex
	until time.Time
	wait  time.Duration
}

// over reports whether requests may be sent.
func (p *pause) over(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !now.Before(p.until)
}

// refused notes that the API refused a request for good.
func (p *pause) refused(now time.Time, o *Options) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = o.longer(p.wait)
	p.until = now.Add(p.wait)
}

// answered notes that the API answered a request.
func (p *pause) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.wait = time.Time{}, 0
}
