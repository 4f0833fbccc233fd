package bridge

import "time"

const (
	hopAfter = 10 * time.Second // longer than a cluster takes to elect a leader
	hopMax   = 2 * time.Minute
)

// hopper has the connection moved to another server of a cluster where this one
// is of no use: it is there, and answers, and was cut off from those that could
// store something. Nothing else would end that before the network is mended.
type hopper struct {
	ailing time.Time     // since when
	wait   time.Duration // until the next move
	well   func() bool
	move   func() bool // false where there is nowhere to go
}

// look is called now and then while there is a connection. It reports whether
// the connection was moved, after how long a time.
func (h *hopper) look(now time.Time) (elapsed time.Duration, moved bool) {
	if h.well() {
		h.ailing, h.wait = time.Time{}, hopAfter
		return 0, false
	}
	if h.ailing.IsZero() {
		h.ailing = now
		h.wait = max(h.wait, hopAfter)
	}
	if elapsed = now.Sub(h.ailing); elapsed < h.wait || !h.move() {
		return elapsed, false
	}
	h.ailing, h.wait = now, min(2*h.wait, hopMax)
	return elapsed, true
}

// lost is called where there is no connection: the next one has all its time.
func (h *hopper) lost() { h.ailing = time.Time{} }
