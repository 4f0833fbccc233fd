package replica

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
)

// throttling is one replica's message to the others about an answer 429.
type throttling struct {
	By     string  `json:"by"`     // the key of the replica that wrote it
	ForMS  int64   `json:"for_ms"` // how long no replica may send a request
	Until  int64   `json:"until"`  // the end of that time, in Unix milliseconds, for a replica that reads it late
	Factor float64 `json:"factor"` // the part of the limit that may be used after that
}

const (
	// throttleGap is the time between two writes. The last throttling of a burst is
	// written well within a second.
	throttleGap = 250 * time.Millisecond
	// throttleRetry is the delay after a write that failed. Meanwhile the watch shows
	// another replica's write.
	throttleRetry = 20 * time.Millisecond
	// throttleFresh is the age of a factor from which on the rate has climbed above it.
	throttleFresh = 2 * time.Second
	// throttleMax limits a throttling; none lasts as long.
	throttleMax = time.Hour
	// throttleNews is the largest age of a factor that a newcomer obeys, because the
	// rate climbs back within minutes.
	throttleNews = time.Minute
)

// throttleState is the state of a membership for [Group.Throttled].
type throttleState struct {
	s        *session
	watch    *watch
	writing  bool
	after    clock.Moment // the earliest time of the next write
	revision uint64       // of the key
	last     throttling
	lastAt   clock.Moment
}

// Throttled reports to all other replicas that the API throttles: they send nothing
// until a time, which may have passed, and then use a factor of the limit. The report is
// sent as soon as the bucket can be written.
func (g *Group) Throttled(until time.Time, factor float64) {
	// Not by the monotonic clock, which may stand still before this is sent.
	next := &throttling{Until: until.UnixMilli(), Factor: factor}
	g.mu.Lock()
	if old := g.brakes; old != nil {
		next.Until, next.Factor = max(next.Until, old.Until), min(next.Factor, old.Factor)
	}
	g.brakes = next
	g.mu.Unlock()
	g.notify()
}

// spread writes the arguments of Throttled.
func (h *throttleState) spread() {
	if h.s.lost != nil || h.writing || !h.watch.synced || h.s.now.Before(h.after) {
		return
	}
	g := h.s.g
	g.mu.Lock()
	brakes := g.brakes
	g.brakes = nil
	g.mu.Unlock()
	if brakes == nil {
		return
	}
	// Another replica's throttling is written again, because a watcher need not be
	// shown an entry that is replaced at once.
	until, factor := max(brakes.Until, h.last.Until), brakes.Factor
	if h.last.By != "" && h.s.now.Since(h.lastAt) < throttleFresh {
		if factor = min(factor, h.last.Factor); until == h.last.Until && factor == h.last.Factor {
			return // all replicas know as much
		}
	}
	left := time.Until(time.UnixMilli(until))
	message := throttling{By: h.s.key, ForMS: max(left, 0).Milliseconds(), Until: until, Factor: factor}
	revision := h.revision
	h.writing = true
	h.s.async(func(ctx context.Context) func() {
		revision, err := put(ctx, h.s.kv, throttleKey, message, revision)
		return func() {
			h.writing = false
			if err == nil {
				h.after = h.s.now.Add(throttleGap)
				h.revision = max(h.revision, revision)
			} else {
				h.after = h.s.now.Add(throttleRetry)
				g.log.Debug("could not send throttling to the other replicas", "err", err)
				g.Throttled(time.UnixMilli(brakes.Until), brakes.Factor)
			}
		}
	})
}

// see takes another replica's throttling and passes it to Options.OnThrottle.
func (h *throttleState) see(e jetstream.KeyValueEntry) {
	var b throttling
	h.revision = max(h.revision, e.Revision())
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &b) != nil || b.By == h.s.key {
		return
	}
	now := time.Now()
	stop := min(time.Duration(max(b.ForMS, 0))*time.Millisecond, throttleMax)
	if !h.watch.synced { // it is of unknown age, except by the clocks of both machines
		if left := time.UnixMilli(b.Until).Sub(now); left < stop {
			stop = max(left, 0)
		}
		if stop == 0 && now.Sub(e.Created()) > throttleNews {
			return
		}
	}
	b.Until = now.Add(stop).UnixMilli() // by this machine's clock
	h.last, h.lastAt = b, h.s.now
	if h.s.g.opts.OnThrottle != nil {
		h.s.g.opts.OnThrottle(now.Add(stop), b.Factor)
	}
}
