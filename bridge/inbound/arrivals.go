package inbound

import (
	"context"
	"time"

	"plaspy-bridge/bridge/tick"

	"github.com/nats-io/nats.go"
)

// Times between two looks at a stream that has nothing new. They double from the
// shortest one on.
const (
	shortestLook   = 5 * time.Millisecond
	announcedLook  = time.Second            // while messages are announced
	unheraldedLook = 100 * time.Millisecond // after a message came without announcement
)

// arrivals wakes the reader when a message is published to the inbound subjects. An
// idle stream need not be looked at often then, and a message waits no longer.
//
// An announcement is a hint only: it may arrive before the stream has stored the
// message, and none comes for a message that the stream takes from another stream,
// or if this user may not subscribe. Its content is ignored.
type arrivals struct {
	came chan struct{}
	sub  *nats.Subscription

	idle, longest time.Duration // the next wait, and the longest one
	slept         bool          // the last wait ended without an announcement
}

// await waits for an announcement, or until the next look.
func (a *arrivals) await(ctx context.Context) {
	wait := a.idle
	if wait >= announcedLook {
		wait = tick.Until(time.Now(), announcedLook)
	}
	timer := tick.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-a.came:
		a.idle, a.longest, a.slept = shortestLook, announcedLook, false
	case <-timer.C:
		a.slept = a.idle > unheraldedLook
		a.idle = min(2*a.idle, a.longest)
	case <-ctx.Done():
	}
}

// found notes that a look showed a new message.
func (a *arrivals) found() {
	if a.slept {
		a.longest = unheraldedLook
	}
	a.idle, a.slept = shortestLook, false
}

// newArrivals subscribes. Close it.
func newArrivals(nc *nats.Conn, subject string) *arrivals {
	a := &arrivals{came: make(chan struct{}, 1), idle: shortestLook, longest: announcedLook}
	sub, err := nc.Subscribe(subject, func(*nats.Msg) { signal(a.came) })
	if err != nil { // the connection is closed; the stream is looked at nevertheless
		a.longest = unheraldedLook
		return a
	}
	a.sub = sub
	return a
}

func (a *arrivals) close() {
	if a.sub != nil {
		_ = a.sub.Unsubscribe() // the connection may be gone
	}
}
