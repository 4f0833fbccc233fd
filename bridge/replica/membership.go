package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/replica/plan"
	"plaspy-bridge/bridge/replica/rendezvous"
	"plaspy-bridge/bridge/tick"
	"plaspy-bridge/publisher"
)

var (
	errEvicted   = errors.New("another replica took over after this replica's lease ran out")
	errStateLost = errors.New("the replicas' bucket lost this replica's state")
)

// membership is one membership in the group, under one key, from the join to the
// leave or the eviction. Its fields belong to the goroutine of Run.
type membership struct {
	g     *Group
	kv    jetstream.KeyValue
	key   string
	now   clock.Moment // of the present step
	calls calls
	lost  error // ends the membership

	watch   watch
	members map[string]*member
	plan    planState
	own     ownRecord
	held    struct {
		owned rendezvous.Views
		slots int
	}
	suspended  bool
	distrusted int // while suspended, this watch and earlier ones are not trusted

	throttle throttleState
	earlier  earlierLease
	leaving  bool // remains only until sent posts are recorded
}

// calls are the requests to the server that run concurrently with the loop.
type calls struct {
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	results chan func()
}

// planState is the plan in force, and its state.
type planState struct {
	plan.Plan
	revision     uint64
	obeyed       clock.Moment // when this replica gave up the devices that it assigns to others
	seen         clock.Moment // when this replica last saw it written
	unreadable   bool         // its key now holds something else
	missing      bool         // a new watch did not show it
	missingSince clock.Moment
	agreed       bool // all members obey it
	agreedSince  clock.Moment
	writing      bool         // the next plan is being written
	notBefore    clock.Moment // the earliest time to write the next plan
}

// member is this replica's view of another one.
type member struct {
	key      string
	record   record
	revision uint64
	first    clock.Moment // when it was first seen
	heard    clock.Moment // when its key last changed, or could not be watched
	watched  int          // the last watch that showed it
	differs  []string
	evicting bool
}

// join joins the group and takes part until ctx is cancelled or the membership is
// lost.
func (g *Group) join(ctx context.Context) error {
	kv, err := g.open(ctx)
	if err != nil {
		return err
	}
	t := &membership{g: g, kv: kv, key: memberKey(g.opts.ID, rand.Text()), members: make(map[string]*member)}
	t.calls.results = make(chan func())
	t.calls.ctx, t.calls.cancel = context.WithCancel(context.WithoutCancel(ctx)) //nolint:fatcontext // once for each membership
	t.watch.entries = make(chan watched)
	defer func() {
		t.calls.cancel()
		t.calls.wg.Wait()
	}()
	ticker := tick.NewTicker(g.opts.Lease / 20)
	defer ticker.Stop()
	t.now = g.clock()
	for t.step(); t.lost == nil; t.step() {
		select {
		case <-ctx.Done():
			return t.stop(ctx, ticker)
		case apply := <-t.calls.results:
			t.now = g.clock()
			apply()
		case e := <-t.watch.entries:
			t.now = g.clock()
			t.see(e)
		case <-g.last.inFlight.Ended:
			t.now = g.clock()
			g.last.settled()
		case <-g.wake:
			t.now = g.clock()
		case <-ticker.C:
			ticker.Next()
			t.now = g.clock()
		}
	}
	return t.lost
}

// async runs f concurrently, and then the function that it returns on the loop.
func (t *membership) async(f func(context.Context) func()) {
	t.calls.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.calls.ctx, t.g.opts.Lease/2)
		defer cancel()
		apply := f(ctx)
		select {
		case t.calls.results <- apply:
		case <-t.calls.ctx.Done():
		}
	})
}

// step does everything that is due.
func (t *membership) step() {
	if t.plan.missing && t.now.Since(t.plan.missingSince) > t.g.every() {
		t.lost = fmt.Errorf("%w: plan %d is missing", errStateLost, t.plan.Epoch)
	}
	if t.lost != nil {
		return
	}
	t.suspend()
	t.listen()
	t.agree()
	t.takeSeat()
	t.forget()
	t.report()
	acknowledge(t)
	t.renew()
	t.coordinate()
	t.spread()
	t.compare()
}

// obey adopts a plan. Devices that it assigns to others are given up at once, but
// other replicas wait until the plan is acknowledged.
func (t *membership) obey(p plan.Plan, revision uint64) {
	switch {
	case revision < t.plan.revision && t.plan.Epoch > 0: // else the store may have gone back
		return // the watch lags
	case p.Epoch < t.plan.Epoch:
		t.lost = fmt.Errorf("%w: plan %d after %d", errStateLost, p.Epoch, t.plan.Epoch)
		return
	case p.Epoch == t.plan.Epoch && !p.Same(&t.plan.Plan):
		t.lost = fmt.Errorf("%w: a different plan %d", errStateLost, p.Epoch)
		return
	}
	t.plan.revision, t.plan.seen, t.plan.unreadable, t.plan.missing = revision, t.now, false, false
	if p.Epoch == t.plan.Epoch {
		return
	}
	if p.Epoch < t.g.epoch {
		// The store was restored to an earlier state between two memberships of this
		// replica. Other replicas may not have noticed yet.
		t.g.abstain()
	}
	t.plan.Plan, t.plan.agreed, t.g.epoch = p, false, p.Epoch
	if p.Poster != t.key {
		t.yieldSeat("another replica posts")
	}
	me, _ := p.Seat(t.key)
	t.held.owned, t.held.slots = t.held.owned.And(p.View(t.key)), min(t.held.slots, me.Slots)
	t.report()
	t.plan.obeyed = t.now
	for _, s := range p.Seats {
		if s.Key != t.key {
			t.member(s.Key) // if the server lost a member's key, it is treated as silent
		}
	}
}

// acknowledge reports that this replica obeys the plan, once the work in flight for the
// devices that it gave up has ended. Work that lasts longer than the lease is revoked,
// so that it does not hold up the other replicas. While the lease has run out, the work
// in flight is neither given up nor revoked, so a plan is acknowledged only afterwards.
func acknowledge(t *membership) {
	if t.suspended || t.own.ack == t.plan.Epoch || !t.g.last.settled() && t.now.Since(t.plan.obeyed) < t.g.opts.Lease {
		return
	}
	t.g.last.revoke()
	t.own.ack = t.plan.Epoch
}

// forget drops members that are gone, have no seat and have no posts in flight.
func (t *membership) forget() {
	for key, m := range t.members {
		if _, seated := t.plan.Seat(key); m.record.Left && !m.record.Posting && !m.evicting && !seated {
			delete(t.members, key)
			t.clean(m)
		}
	}
}

// agree takes up the devices of the plan once all members obey it.
func (t *membership) agree() {
	if t.plan.agreed || t.plan.Epoch == 0 {
		return
	}
	for _, s := range t.plan.Seats {
		if s.Key == t.key {
			if t.own.acked != t.plan.Epoch {
				return
			}
		} else if m := t.member(s.Key); m.record.Left || m.record.Ack != t.plan.Epoch {
			return
		}
	}
	t.plan.agreed, t.plan.agreedSince = true, t.now
	me, seated := t.plan.Seat(t.key)
	t.held.owned, t.held.slots = nil, me.Slots
	if v := t.plan.View(t.key); v != nil {
		t.held.owned = rendezvous.Views{v}
	}
	if seated {
		t.g.log.Info("work divided among replicas", "members", len(t.plan.Seats), "epoch", t.plan.Epoch, "share", share(t.held.slots, t.g.opts.Limit, t.plan.Limit))
	}
}

// errSilence is the reason for a lease that ran out without a failed renewal.
var errSilence = errors.New("no answer yet, or this process was suspended, or the clock was set")

// suspend handles the end of the lease, and a renewal after it.
func (t *membership) suspend() {
	live := t.g.Live()
	switch {
	case live && t.suspended:
		t.suspended = false
		t.g.log.Info("lease renewed before another replica took over")
		t.resetSilence()
	case !live && !t.suspended && t.g.lease.Load() != nil:
		t.suspended = true
		t.yieldSeat("the lease ran out")
		t.own.at = t.now // retry now for any reason
		t.watch.broken, t.distrusted = true, t.watch.n
		err := t.own.err
		if err == nil {
			err = errSilence
		} else if full := publisher.Full(err); full != "" {
			err = errors.New(full)
		}
		t.g.log.Warn("could not renew the lease, pausing work", "err", err)
	}
}

// resetSilence restarts the silence of all members after a time in which this
// replica could not watch them.
func (t *membership) resetSilence() {
	for _, m := range t.members {
		m.heard = t.now
	}
}

// report assigns this replica its part of the work, or records why it has none.
func (t *membership) report() {
	_, seated := t.plan.Seat(t.key)
	switch {
	case t.g.stopped.Load(): // it has given up everything, whatever plan still comes
		return
	case t.suspended:
		t.g.troubled(because("the lease ran out: the replicas' bucket cannot be written", t.own.err))
		t.g.assign(Assignment{Epoch: t.plan.Epoch, Suspended: true}, nil)
		return
	case t.own.revision == 0:
		t.g.troubled(because("joining the replica group", t.own.err))
	case t.held.slots == 0 && t.plan.Full():
		t.g.standsBy("there are more replicas than requests a minute: this replica is on standby until another one ends")
	case !seated, t.held.slots == 0:
		t.g.troubled("waiting until other replicas give up devices, or their leases run out")
	default:
		t.g.troubled("")
	}
	members := len(t.plan.Seats)
	if !seated {
		members = 0
	}
	t.g.members.Store(int64(members))
	t.g.assign(Assignment{Epoch: t.plan.Epoch, Share: share(t.held.slots, t.g.opts.Limit, t.plan.Limit), Members: members}, t.held.owned)
}

// because adds to a trouble its cause, if the store is full.
func because(trouble string, err error) string {
	if full := publisher.Full(err); full != "" {
		return trouble + "; " + full
	}
	return trouble
}

// share returns a replica's slots as a fraction of its own limit, or of the plan's
// if it has none.
func share(slots, own, plan int) float64 {
	limit := cmp.Or(own, plan)
	if limit == 0 {
		return 0
	}
	return min(float64(slots)/float64(limit), 1)
}

// stop gives up everything except sent posts, and leaves once these are recorded.
func (t *membership) stop(ctx context.Context, ticks tick.Ticker) error {
	g := t.g
	g.stopped.Store(true)
	g.seat.set(false)
	g.surrender() // before other replicas can notice
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.opts.Grace)
	defer cancel()
	// If no other replica is there, none takes over before this one has left.
	keepLease(grace, t, ticks, func() bool { return alone(t) && !g.last.settled() })
	g.last.revoke()
	if g.seat.inUse() && t.own.revision > 0 && !t.linger(grace, ticks) {
		return fmt.Errorf("leave the replicas with posts in flight: %w", cmp.Or(t.lost, context.DeadlineExceeded))
	}
	g.release(ctx)
	return t.leave()
}

// keepLease renews the lease during a stop while a condition holds, until grace ends.
// Nothing is assigned any more, so it does not look at plans.
func keepLease(grace context.Context, t *membership, ticks tick.Ticker, while func() bool) {
	for t.lost == nil && while() {
		t.listen()
		t.renew()
		select {
		case <-t.g.last.inFlight.Ended:
			t.now = t.g.clock()
			t.g.last.settled()
		case apply := <-t.calls.results:
			t.now = t.g.clock()
			apply()
		case e := <-t.watch.entries:
			t.now = t.g.clock()
			if e.entry == nil || e.entry.Key() != planKey {
				t.see(e)
			}
		case <-t.g.wake:
			t.now = t.g.clock()
		case <-ticks.C:
			ticks.Next()
			t.now = t.g.clock()
		case <-grace.Done():
			return
		}
	}
}

// alone reports whether no other replica can have taken over. A silent one may
// continue at any moment, and an unknown one may have joined after the lease ran out.
func alone(t *membership) bool {
	for key, m := range t.members {
		if key != t.key && !m.record.Left {
			return false
		}
	}
	return t.g.leased()
}

// leave announces the end, so that other replicas need not wait for the lease.
func (t *membership) leave() error {
	t.calls.cancel()
	t.calls.wg.Wait()
	if t.own.beat == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(t.g.opts.Lease/4, time.Second))
	defer cancel()
	// Other replicas write the key only to evict this one, which has the same effect.
	r := t.own.record(t.g)
	r.Left, r.Posting = true, false
	data, err := json.Marshal(r)
	if err == nil {
		_, err = t.kv.Put(ctx, t.key, data)
	}
	if err != nil {
		return fmt.Errorf("leave the replicas: %w", err)
	}
	return nil
}
