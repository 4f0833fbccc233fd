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
	By     string  `json:"by"`     // its key
	ForMS  int64   `json:"for_ms"` // nothing is to be sent for so long
	Until  int64   `json:"until"`  // the same as a time, in Unix milliseconds, for a replica that reads it late
	Factor float64 `json:"factor"` // of the limit, to go on with
}

const (
	// throttleGap is between two of them: the last one of a burst is written well
	// within a second.
	throttleGap = 250 * time.Millisecond
	// throttleRetry is the time in which the watch shows another replica's write.
	throttleRetry = 20 * time.Millisecond
	// throttleFresh is how old a factor may be before the rate has climbed from it.
	throttleFresh = 2 * time.Second
	// throttleMax is more than any throttling lasts.
	throttleMax = time.Hour
	// throttleNews is for how long a factor is of interest to a newcomer:
	// the rate climbs back within minutes.
	throttleNews = time.Minute
)

// throttleState is a membership's part in it.
type throttleState struct {
	writing  bool
	after    clock.Moment // no writing before
	revision uint64       // of the key
	last     throttling
	lastAt   clock.Moment
}

// Throttled sends all other replicas that the API throttles: nothing is to be sent
// until a time, which may have passed, and then at a factor of the limit. It is
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
func (t *membership) spread() {
	s := &t.throttle
	if t.lost != nil || s.writing || !t.watch.synced || t.now.Before(s.after) {
		return
	}
	g := t.g
	g.mu.Lock()
	brakes := g.brakes
	g.brakes = nil
	g.mu.Unlock()
	if brakes == nil {
		return
	}
	// Another replica's throttling is written again, because a watcher need not be
	// shown an entry that is replaced at once.
	until, factor := max(brakes.Until, s.last.Until), brakes.Factor
	if s.last.By != "" && t.now.Since(s.lastAt) < throttleFresh {
		if factor = min(factor, s.last.Factor); until == s.last.Until && factor == s.last.Factor {
			return // all replicas know as much
		}
	}
	left := time.Until(time.UnixMilli(until))
	message := throttling{By: t.key, ForMS: max(left, 0).Milliseconds(), Until: until, Factor: factor}
	revision := s.revision
	s.writing = true
	t.async(func(ctx context.Context) func() {
		revision, err := put(ctx, t.kv, throttleKey, message, revision)
		return func() {
			s.writing = false
			if err == nil {
				s.after = t.now.Add(throttleGap)
				s.revision = max(s.revision, revision)
			} else {
				s.after = t.now.Add(throttleRetry)
				g.log.Debug("could not send throttling to the other replicas", "err", err)
				g.Throttled(time.UnixMilli(brakes.Until), brakes.Factor)
			}
		}
	})
}

// seeThrottle hands on another replica's throttling.
func (t *membership) seeThrottle(e jetstream.KeyValueEntry) {
	var b throttling
	t.throttle.revision = max(t.throttle.revision, e.Revision())
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &b) != nil || b.By == t.key {
		return
	}
	now := time.Now()
	stop := min(time.Duration(max(b.ForMS, 0))*time.Millisecond, throttleMax)
	if !t.watch.synced { // it was there before; how long, only the clocks can say
		if left := time.UnixMilli(b.Until).Sub(now); left < stop {
			stop = max(left, 0)
		}
		if stop == 0 && now.Sub(e.Created()) > throttleNews {
			return
		}
	}
	b.Until = now.Add(stop).UnixMilli() // by this machine's clock
	t.throttle.last, t.throttle.lastAt = b, t.now
	if t.g.opts.OnThrottle != nil {
		t.g.opts.OnThrottle(now.Add(stop), b.Factor)
	}
}
