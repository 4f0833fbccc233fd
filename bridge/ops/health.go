package ops

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Health knows how each part of the bridge fares. Make one with [NewHealth]. Safe
// for concurrent use; no method blocks.
type Health struct {
	start time.Time // heartbeats count from here, on the monotonic clock

	mu     sync.Mutex
	parts  map[string]PartStatus // guarded by mu
	hearts map[string]*Heartbeat // guarded by mu
}

// PartStatus tells how one part fares.
type PartStatus struct {
	OK       bool      `json:"ok"`                 // false keeps the bridge from being ready
	Degraded bool      `json:"degraded,omitempty"` // works, but a person should look; only with OK
	Reason   string    `json:"reason,omitempty"`   // why it is as it is, for people
	Since    time.Time `json:"since"`              // when OK or Degraded became what it is, UTC
}

// HeartStatus tells how one heartbeat fares.
type HeartStatus struct {
	OK     bool    `json:"ok"`
	Age    float64 `json:"age_seconds"` // since the last beat; 0 while idle
	MaxAge float64 `json:"max_age_seconds"`
	Idle   bool    `json:"idle,omitempty"`  // none is expected
	Waits  string  `json:"waits,omitempty"` // what it waits for, for people; only with Idle
}

// NewHealth returns a Health that is not ready: it has no parts yet.
func NewHealth() *Health {
	return &Health{start: time.Now(), parts: map[string]PartStatus{}, hearts: map[string]*Heartbeat{}}
}

// Part returns a handle on the part of that name. A part that is new is not ok,
// with the reason "starting", until its first report.
func (h *Health) Part(name string) *Part {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.parts[name]; !known {
		h.parts[name] = PartStatus{Reason: "starting", Since: time.Now().UTC()}
	}
	return &Part{health: h, name: name}
}

// Set reports on the part of that name: ok or not, and why. The reason is shown
// on pages and must hold no secret.
func (h *Health) Set(name string, ok bool, reason string) { h.set(name, ok, false, reason) }

func (h *Health) set(name string, ok, degraded bool, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status, known := h.parts[name]
	if !known || status.OK != ok || status.Degraded != degraded {
		status.Since = time.Now().UTC()
	}
	status.OK, status.Degraded, status.Reason = ok, degraded, reason
	h.parts[name] = status
}

// Ready reports whether every part is ok, and there is one, and how each fares.
// The map is the caller's.
func (h *Health) Ready() (bool, map[string]PartStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ready := len(h.parts) > 0
	for _, part := range h.parts {
		ready = ready && part.OK
	}
	return ready, maps.Clone(h.parts)
}

// Progress returns the heartbeat of that name, which has to beat at least once
// every maxAge for the bridge to count as alive. The first beat is now. Asking
// again for the same name changes its maxAge and keeps its beat.
func (h *Health) Progress(name string, maxAge time.Duration) *Heartbeat {
	h.mu.Lock()
	defer h.mu.Unlock()
	heart, known := h.hearts[name]
	if !known {
		heart = &Heartbeat{start: h.start}
		heart.Beat()
		h.hearts[name] = heart
	}
	heart.maxAge.Store(int64(maxAge))
	return heart
}

// Live reports whether no heartbeat is overdue, and how each fares. The map is
// the caller's.
func (h *Health) Live() (bool, map[string]HeartStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	live := true
	hearts := make(map[string]HeartStatus, len(h.hearts))
	for name, heart := range h.hearts {
		status := heart.status()
		live = live && status.OK
		hearts[name] = status
	}
	return live, hearts
}

// Part is a handle on one part of a [Health]. Safe for concurrent use.
type Part struct {
	health *Health
	name   string
}

// OK reports that the part works.
func (p *Part) OK() { p.health.set(p.name, true, false, "") }

// Degraded reports that the part works, but not as it should.
func (p *Part) Degraded(reason string) { p.health.set(p.name, true, true, reason) }

// Fail reports that the part does not work, and why.
func (p *Part) Fail(reason string) { p.health.set(p.name, false, false, reason) }

// Set is OK or Fail, with a reason that may be told either way.
func (p *Part) Set(ok bool, reason string) { p.health.set(p.name, ok, false, reason) }

// idle is the beat of a heart that need not beat.
const idle = -1

// Heartbeat is a sign of progress of one loop, or of one kind of work. Safe for
// concurrent use; a beat is one atomic store, cheap enough for a loop that polls
// thousands of times a second.
type Heartbeat struct {
	start  time.Time
	last   atomic.Int64 // nanoseconds after start, or idle
	maxAge atomic.Int64 // nanoseconds
	waits  atomic.Pointer[string]
}

// Beat says that the loop got somewhere just now.
func (b *Heartbeat) Beat() { b.last.Store(int64(time.Since(b.start))) }

// Idle says that there is nothing to get anywhere with, for instance no device
// to poll, so that no beat is due until the one after the next Beat.
func (b *Heartbeat) Idle() { b.Wait("") }

// Wait is Idle, and says what it waits for that a restart would not bring: the
// text is shown on pages and must hold no secret.
func (b *Heartbeat) Wait(what string) {
	if old := b.waits.Load(); old == nil || *old != what {
		b.waits.Store(&what)
	}
	b.last.Store(idle)
}

func (b *Heartbeat) status() HeartStatus {
	maxAge := time.Duration(b.maxAge.Load())
	last := b.last.Load()
	if last == idle {
		status := HeartStatus{OK: true, MaxAge: maxAge.Seconds(), Idle: true}
		if waits := b.waits.Load(); waits != nil {
			status.Waits = *waits
		}
		return status
	}
	// A beat may have come between the two readings of the clock.
	age := max(0, time.Since(b.start)-time.Duration(last))
	return HeartStatus{OK: age <= maxAge, Age: age.Seconds(), MaxAge: maxAge.Seconds()}
}
