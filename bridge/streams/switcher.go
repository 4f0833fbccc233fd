package streams

import "time"

const (
	switchAfter = 10 * time.Second // longer than a cluster takes to elect a leader
	switchMax   = 2 * time.Minute
)

// switcher moves the connection to another server of a cluster if the connected one
// answers but is cut off from the majority, so that it cannot store messages. The
// client library would stay connected until the network is repaired.
type switcher struct {
	since time.Time     // when the trouble, or the last move, was
	wait  time.Duration // from since to the next move
	well  func() bool
	move  func() bool // false if there is no other server
}

// look is called periodically while there is a connection. It reports whether it
// moved the connection, and the time since the trouble began or since the last move.
func (s *switcher) look(now time.Time) (elapsed time.Duration, moved bool) {
	if s.well() {
		s.since, s.wait = time.Time{}, switchAfter
		return 0, false
	}
	if s.since.IsZero() {
		s.since = now
		s.wait = max(s.wait, switchAfter)
	}
	if elapsed = now.Sub(s.since); elapsed < s.wait || !s.move() {
		return elapsed, false
	}
	s.since, s.wait = now, min(2*s.wait, switchMax)
	return elapsed, true
}

// lost is called while there is no connection, and restarts the wait.
func (s *switcher) lost() { s.since = time.Time{} }
