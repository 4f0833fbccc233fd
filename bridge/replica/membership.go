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
// leave or the eviction. It follows the plans and holds what they assign. Its fields and
// parts belong to the goroutine of Run.
type membership struct {
	s    *session
	plan planState
	held struct {
		owned rendezvous.Views
		slots int
	}

	watch       *watch
	members     *members
	own         *ownRecord
	coordinator *coordinator
	throttle    throttleState
	earlier     earlierLease
}

// session is the part of a membership that its other parts have in common.
type session struct {
	g     *Group
	kv    jetstream.KeyValue
	key   string       // of this replica
	now   clock.Moment // of the present step
	calls calls
	lost  error // ends the membership
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
}

// join joins the group and takes part until ctx is cancelled or the membership is
// lost.
func (g *Group) join(ctx context.Context) error {
	kv, err := g.open(ctx)
	if err != nil {
		return err
	}
	t := newMembership(ctx, g, kv, memberKey(g.opts.ID, rand.Text()))
	defer func() {
		t.s.calls.cancel()
		t.s.calls.wg.Wait()
	}()
	ticker := tick.NewTicker(g.opts.Lease / 20)
	defer ticker.Stop()
	t.s.now = g.clock()
	for t.step(); t.s.lost == nil; t.step() {
		select {
		case <-ctx.Done():
			return t.stop(ctx, ticker)
		case apply := <-t.s.calls.results:
			t.s.now = g.clock()
			apply()
		case e := <-t.watch.entries:
			t.s.now = g.clock()
			t.see(e)
		case <-g.last.inFlight.Ended:
			t.s.now = g.clock()
			g.last.settled()
		case <-g.wake:
			t.s.now = g.clock()
		case <-ticker.C:
			ticker.Next()
			t.s.now = g.clock()
		}
	}
	return t.s.lost
}

// newMembership makes a membership that has not written anything yet.
func newMembership(ctx context.Context, g *Group, kv jetstream.KeyValue, key string) *membership {
	s := &session{g: g, kv: kv, key: key, now: g.clock()}
	s.calls.results = make(chan func())
	s.calls.ctx, s.calls.cancel = context.WithCancel(context.WithoutCancel(ctx)) //nolint:fatcontext // once for each membership
	w := &watch{s: s, entries: make(chan watched)}
	all := &members{s: s, watch: w, byKey: make(map[string]*member)}
	t := &membership{s: s, watch: w, members: all, own: &ownRecord{s: s, watch: w, members: all}}
	t.coordinator = &coordinator{s: s, watch: w, members: all, own: t.own, plan: &t.plan, obey: t.obey}
	t.throttle.s, t.throttle.watch, t.earlier.s = s, w, s
	return t
}

// async runs f concurrently, and then the function that it returns on the loop.
func (s *session) async(f func(context.Context) func()) {
	s.calls.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.calls.ctx, s.g.opts.Lease/2)
		defer cancel()
		apply := f(ctx)
		select {
		case s.calls.results <- apply:
		case <-s.calls.ctx.Done():
		}
	})
}

// step does everything that is due.
func (t *membership) step() {
	if t.plan.missing && t.s.now.Since(t.plan.missingSince) > t.s.g.every() {
		t.s.lost = fmt.Errorf("%w: plan %d is missing", errStateLost, t.plan.Epoch)
	}
	if t.s.lost != nil {
		return
	}
	t.suspend()
	t.listen()
	t.agree()
	t.takeSeat()
	t.coordinator.forget()
	t.report()
	t.acknowledge()
	t.renew()
	t.coordinator.coordinate()
	t.throttle.spread()
	t.members.compare()
}

// listen keeps the watch going, by what the own key shows of it.
func (t *membership) listen() { t.watch.listen(t.own.revision, t.own.sent) }

// renew writes the own key if that is due.
func (t *membership) renew() {
	_, seated := t.plan.Seat(t.s.key)
	t.own.renew(seated)
}

// obey adopts a plan. Devices that it assigns to others are given up at once, but
// other replicas wait until the plan is acknowledged.
func (t *membership) obey(p plan.Plan, revision uint64) {
	switch {
	case revision < t.plan.revision && t.plan.Epoch > 0: // else the store may have gone back
		return // the watch lags
	case p.Epoch < t.plan.Epoch:
		t.s.lost = fmt.Errorf("%w: plan %d after %d", errStateLost, p.Epoch, t.plan.Epoch)
		return
	case p.Epoch == t.plan.Epoch && !p.Same(&t.plan.Plan):
		t.s.lost = fmt.Errorf("%w: a different plan %d", errStateLost, p.Epoch)
		return
	}
	t.plan.revision, t.plan.seen, t.plan.unreadable, t.plan.missing = revision, t.s.now, false, false
	if p.Epoch == t.plan.Epoch {
		return
	}
	if p.Epoch < t.s.g.epoch {
		// The store was restored to an earlier state between two memberships of this
		// replica. Other replicas may not have noticed yet.
		t.s.g.abstain()
	}
	t.plan.Plan, t.plan.agreed, t.s.g.epoch = p, false, p.Epoch
	if p.Poster != t.s.key {
		t.yieldSeat("another replica posts")
	}
	me, _ := p.Seat(t.s.key)
	t.held.owned, t.held.slots = t.held.owned.And(p.View(t.s.key)), min(t.held.slots, me.Slots)
	t.report()
	t.plan.obeyed = t.s.now
	for _, s := range p.Seats {
		if s.Key != t.s.key {
			t.members.get(s.Key) // if the server lost a member's key, it is treated as silent
		}
	}
}

// acknowledge reports that this replica obeys the plan, once the work in flight for the
// devices that it gave up has ended. Work that lasts longer than the lease is revoked,
// so that it does not hold up the other replicas. While the lease has run out, the work
// in flight is neither given up nor revoked, so a plan is acknowledged only afterwards.
func (t *membership) acknowledge() {
	if t.own.suspended || t.own.ack == t.plan.Epoch || !t.s.g.last.settled() && t.s.now.Since(t.plan.obeyed) < t.s.g.opts.Lease {
		return
	}
	t.s.g.last.revoke()
	t.own.ack = t.plan.Epoch
}

// agree takes up the devices of the plan once all members obey it.
func (t *membership) agree() {
	if t.plan.agreed || t.plan.Epoch == 0 {
		return
	}
	for _, s := range t.plan.Seats {
		if s.Key == t.s.key {
			if t.own.acked != t.plan.Epoch {
				return
			}
		} else if m := t.members.get(s.Key); m.record.Left || m.record.Ack != t.plan.Epoch {
			return
		}
	}
	t.plan.agreed, t.plan.agreedSince = true, t.s.now
	me, seated := t.plan.Seat(t.s.key)
	t.held.owned, t.held.slots = nil, me.Slots
	if v := t.plan.View(t.s.key); v != nil {
		t.held.owned = rendezvous.Views{v}
	}
	if seated {
		t.s.g.log.Info("work divided among replicas", "members", len(t.plan.Seats), "epoch", t.plan.Epoch, "share", share(t.held.slots, t.s.g.opts.Limit, t.plan.Limit))
	}
}

// errSilence is the reason for a lease that ran out without a failed renewal.
var errSilence = errors.New("no answer yet, or this process was suspended, or the clock was set")

// suspend handles the end of the lease, and a renewal after it.
func (t *membership) suspend() {
	live := t.s.g.Live()
	switch {
	case live && t.own.suspended:
		t.own.suspended = false
		t.s.g.log.Info("lease renewed before another replica took over")
		t.members.resetSilence()
	case !live && !t.own.suspended && t.s.g.lease.Load() != nil:
		t.own.suspended = true
		t.yieldSeat("the lease ran out")
		t.own.at = t.s.now // retry now for any reason
		t.watch.distrust()
		err := t.own.err
		if err == nil {
			err = errSilence
		} else if full := publisher.Full(err); full != "" {
			err = errors.New(full)
		}
		t.s.g.log.Warn("could not renew the lease, pausing work", "err", err)
	}
}

// report assigns this replica its part of the work, or records why it has none.
func (t *membership) report() {
	_, seated := t.plan.Seat(t.s.key)
	switch {
	case t.s.g.stopped.Load(): // it has given up everything, whatever plan still comes
		return
	case t.own.suspended:
		t.s.g.troubled(because("the lease ran out: the replicas' bucket cannot be written", t.own.err))
		t.s.g.assign(Assignment{Epoch: t.plan.Epoch, Suspended: true}, nil)
		return
	case t.own.revision == 0:
		t.s.g.troubled(because("joining the replica group", t.own.err))
	case t.held.slots == 0 && t.plan.Full():
		t.s.g.standsBy("there are more replicas than requests a minute: this replica is on standby until another one ends")
	case !seated, t.held.slots == 0:
		t.s.g.troubled("waiting until other replicas give up devices, or their leases run out")
	default:
		t.s.g.troubled("")
	}
	members := len(t.plan.Seats)
	if !seated {
		members = 0
	}
	t.s.g.members.Store(int64(members))
	t.s.g.assign(Assignment{Epoch: t.plan.Epoch, Share: share(t.held.slots, t.s.g.opts.Limit, t.plan.Limit), Members: members}, t.held.owned)
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
	g := t.s.g
	g.stopped.Store(true)
	g.seat.set(false)
	g.surrender() // before other replicas can notice
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.opts.Grace)
	defer cancel()
	// If no other replica is there, none takes over before this one has left.
	t.keepLease(grace, ticks, func() bool { return t.alone() && !g.last.settled() })
	g.last.revoke()
	if g.seat.inUse() && t.own.revision > 0 && !t.linger(grace, ticks) {
		return fmt.Errorf("leave the replicas with posts in flight: %w", cmp.Or(t.s.lost, context.DeadlineExceeded))
	}
	g.release(ctx)
	return t.leave()
}

// keepLease renews the lease during a stop while a condition holds, until grace ends.
// Nothing is assigned any more, so it does not look at plans.
func (t *membership) keepLease(grace context.Context, ticks tick.Ticker, while func() bool) {
	for t.s.lost == nil && while() {
		t.listen()
		t.renew()
		select {
		case <-t.s.g.last.inFlight.Ended:
			t.s.now = t.s.g.clock()
			t.s.g.last.settled()
		case apply := <-t.s.calls.results:
			t.s.now = t.s.g.clock()
			apply()
		case e := <-t.watch.entries:
			t.s.now = t.s.g.clock()
			if e.entry == nil || e.entry.Key() != planKey {
				t.see(e)
			}
		case <-t.s.g.wake:
			t.s.now = t.s.g.clock()
		case <-ticks.C:
			ticks.Next()
			t.s.now = t.s.g.clock()
		case <-grace.Done():
			return
		}
	}
}

// alone reports whether no other replica can have taken over. A silent one may
// continue at any moment, and an unknown one may have joined after the lease ran out.
func (t *membership) alone() bool {
	for key, m := range t.members.byKey {
		if key != t.s.key && !m.record.Left {
			return false
		}
	}
	return t.s.g.leased()
}

// leave announces the end, so that other replicas need not wait for the lease.
func (t *membership) leave() error {
	t.s.calls.cancel()
	t.s.calls.wg.Wait()
	if t.own.beat == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(t.s.g.opts.Lease/4, time.Second))
	defer cancel()
	// Other replicas write the key only to evict this one, which has the same effect.
	r := t.own.record()
	r.Left, r.Posting = true, false
	data, err := json.Marshal(r)
	if err == nil {
		_, err = t.s.kv.Put(ctx, t.s.key, data)
	}
	if err != nil {
		return fmt.Errorf("leave the replicas: %w", err)
	}
	return nil
}
