package ops

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// State is the state of a part. Its reason is shown on pages and must not contain
// secrets.
type State struct {
	OK       bool   `json:"ok"`                 // false keeps the bridge from being ready
	Degraded bool   `json:"degraded,omitempty"` // works but needs attention; only with OK
	Reason   string `json:"reason,omitempty"`   // for people; empty if there is nothing to say
}

// Up is the state of a part that works.
func Up() State { return State{OK: true} }

// Degraded is the state of a part that works but needs attention.
func Degraded(reason string) State { return State{OK: true, Degraded: true, Reason: reason} }

// Down is the state of a part that does not work.
func Down(reason string) State { return State{Reason: reason} }

// Health is the table of the states of all parts and the progress of all loops.
// /readyz, /livez, the metrics, the log and the live view show it. Make it with
// [NewHealth]. It is safe for concurrent use, and no method blocks.
type Health struct {
	start time.Time // heartbeats count from here, on the monotonic clock

	mu     sync.Mutex
	parts  map[string]PartStatus // guarded by mu
	hearts map[string]*Heartbeat // guarded by mu
}

// PartStatus is the state of one part and the time since which it lasts.
type PartStatus struct {
	State
	Since time.Time `json:"since"` // of the present OK and Degraded, UTC
}

// HeartStatus is the state of one heartbeat.
type HeartStatus struct {
	OK     bool    `json:"ok"`
	Age    float64 `json:"age_seconds"` // since the last beat; 0 while idle
	MaxAge float64 `json:"max_age_seconds"`
	Idle   bool    `json:"idle,omitempty"`  // no beat is expected
	Waits  string  `json:"waits,omitempty"` // why no beat is expected; only with Idle
}

// NewHealth returns a Health that expects reports of these parts. Each is down with
// the reason "starting" until its first report. A Health without parts is not ready.
func NewHealth(parts ...string) *Health {
	h := &Health{start: time.Now(), parts: map[string]PartStatus{}, hearts: map[string]*Heartbeat{}}
	for _, name := range parts {
		h.Report(name, Down("starting"))
	}
	return h
}

// Report sets the state of the part of that name.
func (h *Health) Report(name string, s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status, known := h.parts[name]
	if !known || status.OK != s.OK || status.Degraded != s.Degraded {
		status.Since = time.Now().UTC()
	}
	status.State = s
	h.parts[name] = status
}

// Ready reports whether every part is ok and there is at least one. It also returns
// the state of each part, in a map that the caller may change.
func (h *Health) Ready() (bool, map[string]PartStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ready := len(h.parts) > 0
	for _, part := range h.parts {
		ready = ready && part.OK
	}
	return ready, maps.Clone(h.parts)
}

// Progress returns the heartbeat of that name, which must beat at least once every
// maxAge, or the bridge counts as dead. The first beat is now. A second call with
// the same name changes maxAge and keeps the last beat.
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

// Live reports whether no heartbeat is overdue. It also returns the state of each,
// in a map that the caller may change.
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

// idle is the value of last if no beat is expected.
const idle = -1

// Heartbeat shows the progress of one loop, or of one kind of work. It is safe for
// concurrent use. A beat is one atomic store, cheap enough for thousands a second.
type Heartbeat struct {
	start  time.Time
	last   atomic.Int64 // nanoseconds after start, or idle
	maxAge atomic.Int64 // nanoseconds
	waits  atomic.Pointer[string]
}

// Beat records that the loop made progress now.
func (b *Heartbeat) Beat() { b.last.Store(int64(time.Since(b.start))) }

// Wait records that no beat is expected until the next call of Beat, for a reason that a
// restart would not remove, for example that no device is to be polled. The reason is
// shown on pages and must not contain secrets.
func (b *Heartbeat) Wait(reason string) {
	if old := b.waits.Load(); old == nil || *old != reason {
		b.waits.Store(&reason)
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
