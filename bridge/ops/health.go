package ops

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// State is the condition that a part reports of itself. Its reason is shown on
// pages and must hold no secret.
type State struct {
	OK       bool   `json:"ok"`                 // false keeps the bridge from being ready
	Degraded bool   `json:"degraded,omitempty"` // works, but a person should look; only with OK
	Reason   string `json:"reason,omitempty"`   // for people; empty if there is nothing to say
}

// Up is the state of a part that works.
func Up() State { return State{OK: true} }

// Degraded is the state of a part that works, but not as it should.
func Degraded(reason string) State { return State{OK: true, Degraded: true, Reason: reason} }

// Down is the state of a part that does not work.
func Down(reason string) State { return State{Reason: reason} }

// Health is the table of the states of all parts, and of the progress of all
// loops. Everything that shows them reads it: /readyz and /livez, the metrics,
// the log and the live view. Make one with [NewHealth]. Safe for concurrent use;
// no method blocks.
type Health struct {
	start time.Time // heartbeats count from here, on the monotonic clock

	mu     sync.Mutex
	parts  map[string]PartStatus // guarded by mu
	hearts map[string]*Heartbeat // guarded by mu
}

// PartStatus is the state of one part, with its beginning.
type PartStatus struct {
	State
	Since time.Time `json:"since"` // of the present OK and Degraded, UTC
}

// HeartStatus is the state of one heartbeat.
type HeartStatus struct {
	OK     bool    `json:"ok"`
	Age    float64 `json:"age_seconds"` // since the last beat; 0 while idle
	MaxAge float64 `json:"max_age_seconds"`
	Idle   bool    `json:"idle,omitempty"`  // none is expected
	Waits  string  `json:"waits,omitempty"` // why none is expected, for people; only with Idle
}

// NewHealth returns a Health that expects reports of these parts. Each is down,
// with the reason "starting", until its first report; without any part nothing is
// ready.
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

// Ready reports whether every part is ok, and there is one, and the state of each.
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

// Live reports whether no heartbeat is overdue, and the state of each. The map is
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

// idle is the beat of a heartbeat that need not beat.
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

// Beat reports that the loop made progress just now.
func (b *Heartbeat) Beat() { b.last.Store(int64(time.Since(b.start))) }

// Idle reports that there is nothing to do, for instance no device to poll, so
// that no beat is due until the one after the next Beat.
func (b *Heartbeat) Idle() { b.Wait("") }

// Wait is Idle with a reason that a restart would not remove. It is shown on
// pages and must hold no secret.
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
