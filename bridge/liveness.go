package bridge

import (
	"context"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/plaspy"
)

// livenessAge is how long nothing may get anywhere before the process counts as
// dead: longer than any wait that it may have a reason for.
func livenessAge(c config.Config) time.Duration { return time.Minute + 2*c.Timeout }

// pulse is the visible state of the bridge's work at one moment. The numbers
// that count only ever grow.
type pulse struct {
	broker string // why nothing can be published now, or ""
	api    string // why nothing is asked of the API now, or ""
	// rate is how many polls a minute there is room for; +Inf: any.
	rate float64

	polls    int    // devices being polled, or whose events are on their way; calls for lists
	ended    uint64 // turns of devices, and calls to the API within them
	pending  int    // chains on their way to the stream
	acked    uint64 // when the stream last took one
	posts    int    // messages being posted, or with a worker
	posted   uint64 // calls that ended, successful or not
	consumer string // why nothing is posted now, or ""
}

// liveness tells the health whether what is due gets anywhere: whether polls end,
// events are acknowledged and posts end, whatever they end with. What holds them
// up outside of this process, which a restart would not mend, is no reason to
// count as dead: the API's silence ends in timeouts, and a broker that is away, a
// missing token or a Retry-After are waited for.
type liveness struct {
	health *ops.Health
	limit  time.Duration
	last   time.Time // when it was last looked at
	asked  calls     // calls to the API by polls
	sent   calls     // calls to the API by posts

	watch               *ops.Heartbeat
	polls, acks, posts  vital
	dispatcher, inbound *ops.Heartbeat // beaten by the loops themselves; inbound may be nil
}

// vital is one kind of work.
type vital struct {
	heart *ops.Heartbeat
	name  string
	limit time.Duration
	mark  [3]uint64 // its progress
	rests bool
}

func newLiveness(h *ops.Health, limit time.Duration, consumes bool) *liveness {
	l := &liveness{health: h, limit: limit, watch: h.Progress("watch", limit), dispatcher: h.Progress("dispatcher", limit)}
	l.polls, l.acks = l.vital("polls"), l.vital("acknowledgements")
	if consumes {
		l.posts, l.inbound = l.vital("posts"), h.Progress("inbound", limit)
	}
	return l
}

func (l *liveness) vital(name string) vital {
	return vital{heart: l.health.Progress(name, l.limit), name: name, limit: l.limit, rests: true}
}

// look is called a few times a second.
func (l *liveness) look(p pulse) {
	l.watch.Beat()
	now := time.Now()
	if now.Sub(l.last) > suspended {
		// The process was stopped, and everything in it: the time does not count.
		l.polls.rests, l.acks.rests, l.posts.rests = true, true, true
	}
	l.last = now
	l.patience(&l.polls, p.polls, p.rate)
	l.polls.look(p.polls > 0, either(p.api, p.broker), [3]uint64{p.ended})
	l.acks.look(p.pending > 0, p.broker, [3]uint64{p.acked, uint64(p.pending), p.ended})
	if l.posts.heart != nil {
		l.patience(&l.posts, p.posts, p.rate)
		l.posts.look(p.posts > 0, either(p.consumer, p.api), [3]uint64{p.posted, uint64(p.posts)})
	}
}

// suspended is the longest time from one look to the next if the process was not
// stopped meanwhile.
const suspended = 5 * time.Second

// look takes a look: whether there is work, and why it need not get anywhere, or
// "".
func (v *vital) look(work bool, waits string, mark [3]uint64) {
	switch {
	case !work:
		v.heart.Wait("there is nothing to do")
		v.rests = true
	case waits != "":
		v.heart.Wait(waits)
		v.rests = true
	case v.rests, mark != v.mark:
		v.heart.Beat()
		v.rests = false
	}
	v.mark = mark
}

// patience gives work that waits for the request budget its time: each of those
// under way may have to wait for a slot.
func (l *liveness) patience(v *vital, underway int, rate float64) {
	const longest = 1000 * time.Hour
	slots := time.Duration(min(float64(underway+1)/max(rate, 1e-9)*float64(time.Minute), float64(longest)))
	if limit := (l.limit + slots).Round(time.Second); limit != v.limit {
		v.limit = limit
		l.health.Progress(v.name, limit)
	}
}

// stopping ends the watch: what is stopped beats no more, and takes the time that
// it was given.
func (l *liveness) stopping() {
	for _, heart := range []*ops.Heartbeat{l.watch, l.dispatcher, l.inbound, l.polls.heart, l.acks.heart, l.posts.heart} {
		if heart != nil {
			heart.Wait("the bridge is stopping")
		}
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// pulse looks at the parts.
func (b *Bridge) pulse() pulse {
	p := pulse{rate: b.budget.PollRate(), pending: b.pub.Pending(), acked: uint64(b.pub.LastAck().UnixNano())}
	switch trouble := b.pub.Trouble(); {
	case !b.conn.IsConnected(), !b.keeper.Ready():
		p.broker = "NATS is away, or has not the streams"
	case trouble != "":
		p.broker = "the stream takes no events"
	}
	switch t := b.tokens.State(); {
	case !t.Held && (t.Refused || t.Err != ""):
		p.api = "there is no token"
	case b.budget.Paused():
		p.api = "the API has asked to be left alone for a while"
	}
	p.polls, p.ended = b.pool.Work()
	p.polls = max(p.polls, int(b.live.asked.underway.Load()))
	p.ended += b.live.asked.ended.Load()
	if b.consumer != nil {
		s := b.consumer.Status()
		p.posts, p.posted = max(s.Ready, int(b.live.sent.underway.Load())), b.live.sent.ended.Load()
		switch {
		case p.broker != "":
			p.consumer = p.broker
		case b.consumer.Trouble() != "":
			p.consumer = "the streams of the consumer side cannot be used"
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

// countedPolls is the API as the pool uses it.
type countedPolls struct {
	*plaspy.Client
	calls *calls
}

// Devices implements outbound.API.
func (c countedPolls) Devices(ctx context.Context) ([]plaspy.Device, []error, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Devices(ctx)
}

// Groups implements outbound.API.
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

// Locations implements outbound.API.
func (c countedPolls) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Locations(ctx, id, body, o)
}

// Alerts implements outbound.API.
func (c countedPolls) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	c.calls.begin()
	defer c.calls.end()
	return c.Client.Alerts(ctx, id, body, o)
}

// countedPosts is the API as the consumer uses it.
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
