package bridge

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/plaspy"
)

// livenessAge is the time without progress after which the process counts as dead.
// It is longer than any legitimate wait.
func livenessAge(c config.Config) time.Duration { return time.Minute + 2*c.Timeout }

// pulse is the state of the bridge's work at one moment. The counters only grow.
type pulse struct {
	broker string // why nothing can be published now, or ""
	api    string // why the API is not called now, or ""
	// rate is the number of polls a minute that the budget admits; +Inf means no limit.
	rate float64

	polls    int    // devices that are polled or have events in flight, and calls for lists
	ended    uint64 // counts the ends of polls, and of calls to the API within them
	pending  int    // chains of events in flight
	acked    uint64 // time of the last acknowledgement
	posts    int    // messages that are posted or assigned to a worker
	posted   uint64 // counts the ends of calls, successful or not
	consumer string // why nothing is posted now, or ""
}

// liveness reports to the health table whether due work makes progress: whether
// polls end, events are acknowledged and posts end, successfully or not. A cause
// outside of this process does not count, because a restart would not help: a
// disconnected broker, a missing token or a Retry-After. Calls to an API that does
// not answer end with timeouts, which is progress.
type liveness struct {
	health    *ops.Health
	limit     time.Duration
	last      time.Time // of the last call of look
	pollCalls calls     // calls to the API by polls
	postCalls calls     // calls to the API by posts

	watch               *ops.Heartbeat
	polls, acks, posts  progress
	dispatcher, inbound *ops.Heartbeat // their loops beat them; inbound may be nil
}

// progress watches one kind of work.
type progress struct {
	heart *ops.Heartbeat
	name  string
	limit time.Duration
	mark  [3]uint64 // the counters at the last look
	rests bool      // there was nothing to do, or a reason to wait
}

func newLiveness(h *ops.Health, limit time.Duration, consumes bool) *liveness {
	l := &liveness{health: h, limit: limit, watch: h.Progress("watch", limit), dispatcher: h.Progress("dispatcher", limit)}
	l.polls, l.acks = l.progress("polls"), l.progress("acknowledgements")
	if consumes {
		l.posts, l.inbound = l.progress("posts"), h.Progress("inbound", limit)
	}
	return l
}

func (l *liveness) progress(name string) progress {
	return progress{heart: l.health.Progress(name, l.limit), name: name, limit: l.limit, rests: true}
}

// look compares the pulse with the last one. It is called a few times a second.
func (l *liveness) look(p pulse) {
	l.watch.Beat()
	now := time.Now()
	if now.Sub(l.last) > suspended {
		// The whole process was suspended, so this time does not count.
		l.polls.rests, l.acks.rests, l.posts.rests = true, true, true
	}
	l.last = now
	l.extend(&l.polls, p.polls, p.rate)
	l.polls.look(p.polls > 0, cmp.Or(p.api, p.broker), [3]uint64{p.ended})
	l.acks.look(p.pending > 0, p.broker, [3]uint64{p.acked, uint64(p.pending), p.ended})
	if l.posts.heart != nil {
		l.extend(&l.posts, p.posts, p.rate)
		l.posts.look(p.posts > 0, cmp.Or(p.consumer, p.api), [3]uint64{p.posted, uint64(p.posts)})
	}
}

// suspended is the time between two looks after which the process must have been
// suspended in between.
const suspended = 5 * time.Second

// look compares the counters with those of the last look. waits is the reason why
// the work need not make progress, or "".
func (v *progress) look(work bool, waits string, mark [3]uint64) {
	switch {
	case waits != "":
		v.heart.Wait(waits)
		v.rests = true
	case !work:
		v.heart.Wait("none is under way")
		v.rests = true
	case v.rests, mark != v.mark:
		v.heart.Beat()
		v.rests = false
	}
	v.mark = mark
}

// extend adds the time that the work may wait for the request budget to its limit:
// each call may have to wait for a slot.
func (l *liveness) extend(v *progress, underway int, rate float64) {
	const longest = 1000 * time.Hour
	slots := time.Duration(min(float64(underway+1)/max(rate, 1e-9)*float64(time.Minute), float64(longest)))
	if limit := (l.limit + slots).Round(time.Second); limit != v.limit {
		v.limit = limit
		l.health.Progress(v.name, limit)
	}
}

// stopping ends the watch. Stopped loops do not beat, and the shutdown has a timeout
// of its own.
func (l *liveness) stopping() {
	for _, heart := range []*ops.Heartbeat{l.watch, l.dispatcher, l.inbound, l.polls.heart, l.acks.heart, l.posts.heart} {
		if heart != nil {
			heart.Wait("the bridge is stopping")
		}
	}
}

// pulse reads the state of the work from the parts.
func (b *Bridge) pulse() pulse {
	p := pulse{rate: b.api.budget.PollRate(), pending: b.broker.pub.Pending(), acked: uint64(b.broker.pub.LastAck().UnixNano())}
	switch trouble := b.broker.pub.Trouble(); {
	case !b.broker.conn.IsConnected(), !b.broker.keeper.Ready():
		p.broker = "NATS is not connected, or its streams are missing"
	case trouble != "":
		p.broker = "the stream does not store events"
	}
	switch t := b.api.tokens.State(); {
	case !t.Held && (t.Refused || t.Err != ""):
		p.api = "there is no token"
	case b.api.budget.Paused():
		p.api = "the API asked for a pause (Retry-After)"
	}
	p.polls, p.ended = b.polling.pool.Work()
	p.polls = max(p.polls, int(b.telemetry.live.pollCalls.underway.Load()))
	p.ended += b.telemetry.live.pollCalls.ended.Load()
	if b.consuming.consumer != nil {
		s := b.consuming.consumer.Status()
		p.posts, p.posted = max(s.Ready, int(b.telemetry.live.postCalls.underway.Load())), b.telemetry.live.postCalls.ended.Load()
		switch {
		case p.broker != "":
			p.consumer = p.broker
		case b.consuming.consumer.Trouble() != "":
			p.consumer = "the inbound streams cannot be used"
		}
	}
	return p
}

// calls counts calls to the API.
type calls struct {
	underway atomic.Int64
	ended    atomic.Uint64
}

func (c *calls) begin() { c.underway.Add(1) }

func (c *calls) end() {
	c.underway.Add(-1)
	c.ended.Add(1)
}

// countedPolls is the API for the pool, with its calls counted.
type countedPolls struct {
	*plaspy.Client
	calls *calls
}

// Devices implements inventory.API.
func (c countedPolls) Devices(ctx context.Context) ([]plaspy.Device, []error, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Devices(ctx)
}

// Groups implements inventory.API.
func (c countedPolls) Groups(ctx context.Context) ([]plaspy.Group, []error, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Groups(ctx)
}

// LastLocation implements outbound.API.
func (c countedPolls) LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.LastLocation(ctx, id, buf)
}

// Locations implements gap.API.
func (c countedPolls) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Locations(ctx, id, body, o)
}

// Alerts implements gap.API.
func (c countedPolls) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Alerts(ctx, id, body, o)
}

// countedPosts is the API for the consumer, with its calls counted.
type countedPosts struct {
	inbound.Poster
	calls *calls
}

// Locations implements inbound.Poster.
func (c countedPosts) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Poster.Locations(ctx, id, body, o)
}

// Alerts implements inbound.Poster.
func (c countedPosts) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Poster.Alerts(ctx, id, body, o)
}
