package plaspy

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/plaspy/daily"
)

// Kind is the purpose of a request, which decides its place in the queue for the budget.
type Kind int

// The kinds. Token goes before all others, List before the rest, but for no more than a quarter of the budget
// while others wait. Poll and Post share evenly while both wait, unless [Budget.FavorPosts] says otherwise. Query
// gets at most a quarter of the budget.
const (
	Token Kind = iota
	List
	Post
	Poll
	Query
	kinds
)

// weight is each kind's part among Post, Poll and Query while all of them wait and posts are not favoured.
var weight = [kinds]float64{Post: 3, Poll: 3, Query: 2}

const (
	// window is the span that the API is taken to count its limit over. It may begin at any time.
	window = time.Minute
	// stretch keeps slots a little further apart than the limit asks for. R+1 requests then span 1.02 windows,
	// and the 1.2 s between that and one window are for the three sources of jitter together:
	// catching up, a permit's life, and the network.
	stretch = 1.02
	// catchUp is how late a slot may be given out and the next still count from when it was due, while a caller
	// was waiting for it: timers fire late, and without this each lateness would lower the rate.
	catchUp = 300 * time.Millisecond
	// idleCatchUp is the same if no caller waited: enough for one caller that comes back for slot after slot,
	// too little to make a burst of an idle time.
	idleCatchUp = 20 * time.Millisecond
	// burst is the least time between two wake-ups for slots that are closer together: those that are due by then
	// are given out at once. It is less than idleCatchUp, so that it does not lower the rate.
	burst = 18 * time.Millisecond
	// permitLife is how long a permit may wait to be used.
	permitLife = 300 * time.Millisecond
)

// Budget is the limiter in front of every request of a process. Requests get slots at an even pace, without
// any burst: over every span of a minute no more than the limit, the first slot one spacing after NewBudget, so
// that a crash and a restart do not break it either. It is safe for concurrent use; waiters leave by their
// context and give their place back.
type Budget struct {
	limit int // requests per minute; 0 means no limit
	log   *slog.Logger

	free       atomic.Bool // no limit, no daily limit and no throttling: nothing to wait for
	made       time.Time
	meter      meter
	blame      blame
	onThrottle atomic.Pointer[func(until time.Time, factor float64)]

	throttled, deviceThrottled prometheus.Counter

	mu     sync.Mutex
	share  float64
	slot   time.Time // the last slot given out; the next is a spacing later
	queued bool      // a caller has been waiting since before the next slot is due
	queues queues
	timer  *time.Timer
	others usage // slots given to anything but polls
	brake  brake
	day    *daily.Pace
}

// waiter is one call of Wait.
type waiter struct {
	kind    Kind
	granted *Permit // set under the budget's mutex
	ready   chan struct{}
}

// NewBudget returns a budget of perMinute requests per minute; 0 means no limit, though 429 and Retry-After
// are obeyed nevertheless. reg may be nil.
func NewBudget(perMinute int, log *slog.Logger, reg prometheus.Registerer) *Budget {
	b := &Budget{limit: max(perMinute, 0), log: log, made: time.Now(), share: 1, brake: brake{factor: 1}, day: daily.New(0, time.Time{})}
	b.slot, b.meter.started, b.queues.posts = b.made, b.made, 1
	b.free.Store(b.limit == 0)
	b.throttled = register(reg, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "plaspy_bridge_api_throttled_total",
		Help: "Answers 429, and 503 with Retry-After, from the Plaspy API.",
	}))
	b.deviceThrottled = register(reg, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "plaspy_bridge_api_device_throttled_total",
		Help: "Answers 429 that concern a single device; plaspy_bridge_api_throttled_total includes them.",
	}))
	register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_budget_requests_per_minute",
		Help: "Requests a minute that this replica may send now: its share, lowered by throttling and PLASPY_DAILY_USAGE; 0 during a Retry-After, +Inf without a limit.",
	}, b.gauge))
	register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_daily_usage_limit",
		Help: "The limit of the account's usage today: PLASPY_DAILY_USAGE, or less if the API refuses everything before; 0 means no limit.",
	}, func() float64 { return float64(b.Day().Limit) }))
	return b
}

// Wait blocks until there is a slot for a request of this kind and returns the permit to send it, which is nil
// without a limit. It returns the context's cause if ctx is done first. For queries it returns [ErrNoBudget] at
// once if their quarter is used up or the deadline would come first, and at the deadline if that comes first
// nevertheless. A permit not used within 300 ms is void.
func (b *Budget) Wait(ctx context.Context, k Kind) (*Permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if b.free.Load() {
		return nil, nil
	}
	w := &waiter{kind: k, ready: make(chan struct{})}
	b.mu.Lock()
	now := time.Now()
	if k == Query && !b.queryRoomLocked(ctx, now) {
		b.mu.Unlock()
		return nil, ErrNoBudget
	}
	place := b.queues.add(w)
	b.grantDueLocked(now)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return w.granted, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.granted != nil {
		b.giveBackLocked(w.granted)
	} else {
		b.queues.waiters[k].Remove(place)
	}
	b.grantDueLocked(time.Now())
	if k == Query && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, ErrNoBudget // the API was not asked
	}
	return nil, context.Cause(ctx)
}

// Admit waits for a slot for req, of the kind in its context, unless that carries a permit that is good
// still. auth.Transport calls it before every send.
func (b *Budget) Admit(req *http.Request) error {
	return b.admit(req.Context(), Query)
}

// AdmitToken is Admit for the token manager's own requests.
func (b *Budget) AdmitToken(req *http.Request) error {
	return b.admit(req.Context(), Token)
}

func (b *Budget) admit(ctx context.Context, otherwise Kind) error {
	if b.free.Load() {
		b.meter.tick()
		return nil
	}
	p := permitOf(ctx)
	if otherwise == Token || !p.take() {
		var err error
		if p, err = b.Wait(ctx, kindOf(ctx, otherwise)); err != nil {
			return err
		}
		p.take()
	}
	if c := callOf(ctx); c != nil && otherwise != Token {
		c.permit = p
	}
	return nil
}

// SetShare sets which part of the limit is this replica's; the shares of all replicas must add up to at most 1.
// Values outside (0, 1] are brought into it.
func (b *Budget) SetShare(fraction float64) {
	if !(fraction > 0) { // NaN too
		fraction = 1e-6
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.share = min(fraction, 1)
	now := time.Now()
	b.day.SetShare(now.Sub(b.made), b.share)
	b.grantDueLocked(now)
}

// FavorPosts sets how many posts go out for each poll while both wait, for a replica with a share that was made larger
// because it posts for others too; less than 1 counts as 1.
func (b *Budget) FavorPosts(perPoll float64) {
	if !(perPoll > 1) { // NaN too
		perPoll = 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queues.posts = perPoll
}

// Waiting returns how many requests of a kind wait for a slot now.
func (b *Budget) Waiting(k Kind) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queues.waiters[k].Len()
}

// PollRate returns how many requests a minute polls may count on: the present rate less the other requests
// of the last minute, and at least the part that is guaranteed to polls. A Retry-After that runs does
// not lower it. +Inf without a limit.
func (b *Budget) PollRate() float64 {
	if b.free.Load() {
		return math.Inf(1)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	pace := b.paceLocked(now)
	if math.IsInf(pace, 1) {
		return pace
	}
	guaranteed := pace * weight[Poll] / (b.queues.weightOf(Post) + weight[Poll] + weight[Query])
	return max(pace-b.others.perMinute(now.Sub(b.made)), guaranteed)
}

// spacingLocked is the time between slots at the present rate.
func (b *Budget) spacingLocked(now time.Time) time.Duration {
	rate := b.rateLocked(now)
	if math.IsInf(rate, 1) {
		return 0
	}
	return time.Duration(float64(window) * stretch / rate)
}

// rateLocked returns this replica's requests per minute. It includes throttling, except for a Retry-After that runs.
func (b *Budget) rateLocked(now time.Time) float64 {
	factor := b.brake.factorAt(now)
	if b.limit == 0 {
		if factor == 1 {
			return math.Inf(1)
		}
		return max(b.brake.observed*factor, 1)
	}
	part := float64(b.limit) * b.share
	// Every replica may be one slot ahead at the edge of a window. With whole numbers these fit into the sum.
	if part >= 1 {
		part = math.Floor(part + 1e-9)
	}
	return part * factor
}

// paceLocked is the requests per minute that may be counted on, now and until midnight.
func (b *Budget) paceLocked(now time.Time) float64 {
	rate := b.rateLocked(now)
	return min(rate/stretch, b.day.State(now.Sub(b.made), int(Poll), rate).Rate)
}

func (b *Budget) gauge() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.settleLocked(now)
	if b.brake.until.After(now) {
		return 0
	}
	return min(b.rateLocked(now), b.paceLocked(now)*stretch)
}

// Permit is a slot in the budget for one request. With it, a caller decides on the request only when
// the slot is there. The nil Permit stands for a budget without a limit.
type Permit struct {
	budget       *Budget
	kind         Kind
	slot, before time.Time
	usage        daily.Grant
	spent        atomic.Bool
}

// Return gives an unused permit back, so that another request can have the slot. After a request was sent with
// it, Return does nothing, so it can be deferred.
func (p *Permit) Return() {
	if p == nil || p.spent.Swap(true) {
		return
	}
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	p.budget.giveBackLocked(p)
	p.budget.grantDueLocked(time.Now())
}

// take uses the permit up and reports whether it was good. One that is too old is void: while permits were
// held back, for instance by a wait for a token, their slots have passed, and using them all at once would be a burst.
func (p *Permit) take() bool {
	if p == nil || p.spent.Swap(true) {
		return false
	}
	if time.Since(p.slot) <= permitLife {
		return true
	}
	p.budget.unused(p)
	return false
}

type (
	permitKey struct{}
	kindKey   struct{}
)

// WithPermit makes the one next request under the context use p instead of waiting for the budget.
func WithPermit(ctx context.Context, p *Permit) context.Context {
	if p == nil {
		return ctx
	}
	return context.WithValue(ctx, permitKey{}, p)
}

func permitOf(ctx context.Context) *Permit {
	p, _ := ctx.Value(permitKey{}).(*Permit)
	return p
}

// WithKind makes requests under the context count as k instead of as the kind of their method.
func WithKind(ctx context.Context, k Kind) context.Context {
	return context.WithValue(ctx, kindKey{}, k)
}

// kindOf returns the kind that WithKind set, or else the call's own kind, or else otherwise.
func kindOf(ctx context.Context, otherwise Kind) Kind {
	if k, ok := ctx.Value(kindKey{}).(Kind); ok {
		return k
	}
	if c := callOf(ctx); c != nil {
		return c.kind
	}
	return otherwise
}
