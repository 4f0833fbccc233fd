package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/tick"
)

// Values of record.Inbound. Versions before the posting seat leave it empty.
const (
	inboundOff    = "off"     // it does not consume
	inboundOn     = "on"      // it can post
	inboundUnable = "unable"  // it consumes, but cannot reach the API
	earlierKey    = "inbound" // the lease of those earlier versions
	earlierTTL    = 6 * time.Second
)

// ErrSeatLost is the cause of the end of a context from [Group.AwaitPosts].
var ErrSeatLost = errors.New("this replica lost the posting seat")

// postingSeat is this replica's right to post inbound messages.
type postingSeat struct {
	mu       sync.Mutex
	assigned bool // the plan assigns it to this replica, and no other replica can hold it
	taken    bool // AwaitPosts returned it, and ReleasePosts was not called yet
	cancel   context.CancelCauseFunc
	changed  chan struct{} // closed when assigned becomes true
}

// Posting reports whether this replica may begin to post an inbound message now.
// Like [Group.Live] it reads the clock, so it is also correct just after the process
// or the machine was suspended. Call it last before a post.
func (g *Group) Posting() bool {
	g.seat.mu.Lock()
	assigned := g.seat.assigned
	g.seat.mu.Unlock()
	return assigned && g.Live()
}

// AwaitPosts blocks until this replica has the posting seat, which one replica of
// the group has at a time. It returns an error if ctx ends first.
//
// The returned context ends with [ErrSeatLost] when no further post may begin: the
// seat moves to another replica, the lease ran out, or [Group.Run] stops. It does not
// end with ctx. The caller then waits until the sent posts are answered and recorded,
// and calls ReleasePosts. No other replica begins to post before that, or before
// this replica's lease has run out.
func (g *Group) AwaitPosts(ctx context.Context) (held context.Context, err error) {
	s := &g.seat
	for {
		s.mu.Lock()
		if s.assigned && !s.taken {
			s.taken = true
			held, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) //nolint:fatcontext // the loop ends here
			s.mu.Unlock()
			return held, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the posting seat: %w", context.Cause(ctx))
		case <-changed:
		}
	}
}

// ReleasePosts gives the seat back after AwaitPosts, once the posts that were sent are
// recorded, or the caller waits for them no longer. It does not block.
func (g *Group) ReleasePosts() {
	s := &g.seat
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.taken {
		return
	}
	s.taken = false
	s.cancel(ErrSeatLost)
	close(s.changed) // the seat may still be this replica's
	s.changed = make(chan struct{})
	g.notify()
}

// set gives the right to begin posts, or takes it away.
func (s *postingSeat) set(assigned bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.assigned == assigned {
		return false
	}
	s.assigned = assigned
	if assigned {
		close(s.changed)
		s.changed = make(chan struct{})
	} else if s.taken {
		s.cancel(ErrSeatLost)
	}
	return true
}

// inUse reports whether posts that began with the seat may be in flight.
func (s *postingSeat) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// takeSeat takes the seat if the plan assigns it and no other replica can be posting.
// This replica keeps the seat through later plans that assign it again.
func (t *membership) takeSeat() {
	s := &t.s.g.seat
	if t.members.earlierVersions() {
		t.earlier.clear = false
		if s.set(false) {
			t.s.g.log.Warn("a replica of an earlier version is running and posts inbound messages until it is replaced")
		}
		return
	}
	if !t.plan.agreed || t.plan.Poster != t.s.key || t.own.suspended {
		return
	}
	for key, m := range t.members.byKey {
		if key == t.s.key || !m.record.Posting {
			continue
		}
		// It must record its posts or be evicted. If another replica has evicted it and
		// deleted its key, this replica may have missed that.
		if t.members.silent(m) && !m.evicting {
			t.coordinator.evict(m)
		}
		return
	}
	if !t.earlier.clear {
		t.earlier.look()
		return
	}
	if s.set(true) {
		t.s.g.log.Info("this replica posts inbound messages")
	}
}

// yieldSeat stops new posts. Posts in flight keep other replicas from posting.
func (t *membership) yieldSeat(why string) {
	if t.s.g.seat.set(false) {
		t.s.g.log.Info("this replica starts no further posts", "reason", why)
	}
}

// earlierLease is the posting lease of versions before the posting seat. Those
// versions do not know the seat, so this version waits for the lease.
type earlierLease struct {
	s        *session
	clear    bool // the lease is not held
	asking   bool
	asked    clock.Moment
	revision uint64
	since    clock.Moment // when the revision was first seen
}

// look checks whether the lease of earlier versions is free: its key does
// not exist, or was not renewed for the length of the lease.
func (e *earlierLease) look() {
	if e.asking || e.revision > 0 && e.s.now.Since(e.asked) < earlierTTL/12 {
		return
	}
	e.asking, e.asked = true, e.s.now
	e.s.async(func(ctx context.Context) func() {
		entry, err := e.s.kv.Get(ctx, earlierKey)
		return func() {
			e.asking = false
			switch {
			case errors.Is(err, jetstream.ErrKeyNotFound):
				e.clear = true
			case err != nil:
				e.revision = max(e.revision, 1) // do not ask again at every step
				e.s.g.log.Debug("could not read the posting lease of earlier versions", "err", err)
			case entry.Revision() != e.revision:
				e.revision, e.since = entry.Revision(), e.s.now
			case e.s.now.Since(e.since) >= earlierTTL:
				e.clear = true
			}
		}
	})
}

// linger keeps the lease during a stop while sent posts wait for their answers.
// Everything else was given up before. It returns true once no post is in flight.
func (t *membership) linger(grace context.Context, ticks tick.Ticker) bool {
	t.own.leaving, t.own.at = true, t.s.now
	t.keepLease(grace, ticks, t.s.g.seat.inUse)
	return t.s.lost == nil && !t.s.g.seat.inUse()
}
