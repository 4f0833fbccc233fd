package streams

import "time"

const (
	switchAfter = 10 * time.Second // longer than a cluster takes to elect a leader
	switchMax   = 2 * time.Minute
)

// switcher has the connection moved to another server of a cluster if the present
// one answers but was cut off from those that could store something. Nothing else
// would end that before the network is mended.
type switcher struct {
	since time.Time     // of the trouble
	wait  time.Duration // until the next move
	well  func() bool
	move  func() bool // false if there is no other server
}

// look is called now and then while there is a connection. It reports whether the
// connection was moved, and after how much time.
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

// lost is called while there is no connection: the next one has all its time.
func (s *switcher) lost() { s.since = time.Time{} }
