package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

var (
	errEvicted   = errors.New("another replica took over, because this one's lease had run out")
	errStateLost = errors.New("the replicas' bucket is not as this one left it")
)

// term is one life in the group, under one key, from joining it to leaving or
// being evicted. Its fields are those of the goroutine of Run.
type term struct {
	g   *Group
	kv  jetstream.KeyValue
	key string
	now moment // of the step under way

	ctx     context.Context // of everything that runs beside the loop
	cancel  context.CancelFunc
	asides  sync.WaitGroup
	results chan func()
	lost    error // ends the term

	watch    watch
	members  map[string]*member
	plan     plan
	planRev  uint64
	planSeen moment // when the plan was last written, as far as is known here
	spoiled  bool   // what stands there now is no plan
	behind   bool   // a new watch did not show it ...
	since    moment // ... since then
	settled  moment // when all members were seen to obey the plan
	agreed   bool   // they were

	own       ownKey
	owned     views
	slots     int
	suspended bool
	blind     int // while suspended, what this watch and those before it showed is not to be relied on

	planning  bool   // a plan is being written
	planAfter moment // no plan before

	throttle throttleState
	leaving  bool // only to have posts recorded that were sent
	earlier  earlierLease
}

// member is a replica as this one sees it.
type member struct {
	key      string
	record   record
	revision uint64
	first    moment // when it was first seen
	heard    moment // when its key was last seen to change, or could not be seen
	watched  int    // the watch that last showed it
	differs  []string
	evicting bool
}

// term joins, and takes part until the context ends or the membership is lost.
func (g *Group) term(ctx context.Context) error {
	kv, err := g.open(ctx)
	if err != nil {
		return err
	}
	t := &term{g: g, kv: kv, key: memberKey(g.opts.ID, rand.Text()), results: make(chan func()), members: make(map[string]*member)}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	t.watch.entries = make(chan watched)
	defer func() {
		t.cancel()
		t.asides.Wait()
	}()
	tick := time.NewTicker(g.opts.Lease / 20)
	defer tick.Stop()
	t.now = g.clock()
	for t.step(); t.lost == nil; t.step() {
		select {
		case <-ctx.Done():
			g.stopped.Store(true)
			g.seat.set(false)
			g.surrender() // before anybody is told
			if g.seat.inUse() && t.own.revision > 0 && !t.linger(tick.C) {
				return fmt.Errorf("leave the replicas with posts under way: %w", cmp.Or(t.lost, context.DeadlineExceeded))
			}
			g.release()
			return t.leave()
		case apply := <-t.results:
			t.now = g.clock()
			apply()
		case e := <-t.watch.entries:
			t.now = g.clock()
			t.see(e)
		case <-g.wake:
			t.now = g.clock()
		case <-tick.C:
			t.now = g.clock()
		}
	}
	return t.lost
}

// aside runs f beside the loop and then, on the loop, what it returns.
func (t *term) aside(f func(context.Context) func()) {
	t.asides.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, t.g.opts.Lease/2)
		defer cancel()
		apply := f(ctx)
		select {
		case t.results <- apply:
		case <-t.ctx.Done():
		}
	})
}

// step does whatever is due.
func (t *term) step() {
	if t.behind && t.now.since(t.since) > t.g.every() {
		t.lost = fmt.Errorf("%w: it does not have plan %d any more", errStateLost, t.plan.Epoch)
	}
	if t.lost != nil {
		return
	}
	t.suspend()
	t.listen()
	t.agree()
	t.takeSeat()
	t.sweep()
	t.publish()
	t.renew()
	t.coordinate()
	t.spread()
	t.compare()
}

// obey takes a plan over: what it gives to others is let go at once.
func (t *term) obey(p plan, revision uint64) {
	switch {
	case revision < t.planRev:
		return // the watch is behind
	case p.Epoch < t.plan.Epoch:
		t.lost = fmt.Errorf("%w: plan %d after %d", errStateLost, p.Epoch, t.plan.Epoch)
		return
	case p.Epoch == t.plan.Epoch && !p.same(&t.plan):
		t.lost = fmt.Errorf("%w: another plan %d", errStateLost, p.Epoch)
		return
	}
	t.planRev, t.planSeen, t.spoiled, t.behind = revision, t.now, false, false
	if p.Epoch == t.plan.Epoch {
		return
	}
	if p.Epoch < t.g.epoch {
		// The store went back between two lives of this replica. Others may not
		// have noticed yet.
		t.g.abstain()
	}
	t.plan, t.agreed, t.g.epoch = p, false, p.Epoch
	if p.Poster != t.key {
		t.yieldSeat("another replica posts")
	}
	me, _ := p.seat(t.key)
	t.owned, t.slots = t.owned.and(p.view(t.key)), min(t.slots, me.Slots)
	t.publish()
	t.own.ack = p.Epoch
	for _, s := range p.Seats {
		if s.Key != t.key {
			t.member(s.Key) // one whose key the server has lost is waited for like one that is silent
		}
	}
}

// sweep forgets the members that are gone, are in no plan and post nothing any
// more.
func (t *term) sweep() {
	for key, m := range t.members {
		if _, seated := t.plan.seat(key); m.record.Left && !m.record.Posting && !m.evicting && !seated {
			delete(t.members, key)
			t.clean(m)
		}
	}
}

// agree notices that all members obey the plan, and takes up what it gives.
func (t *term) agree() {
	if t.agreed || t.plan.Epoch == 0 {
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
	t.agreed, t.settled = true, t.now
	me, seated := t.plan.seat(t.key)
	t.owned, t.slots = nil, me.Slots
	if v := t.plan.view(t.key); v != nil {
		t.owned = views{v}
	}
	if seated {
		t.g.log.Info("work divided among replicas", "members", len(t.plan.Seats), "epoch", t.plan.Epoch, "share", t.share())
	}
}

// errSilence is why a lease ran out that no try to renew it has failed for.
var errSilence = errors.New("no answer yet, or this process stood still, or the clock was set")

// suspend notices the end of the lease, and that it was renewed after all.
func (t *term) suspend() {
	live := t.g.Live()
	switch {
	case live && t.suspended:
		t.suspended = false
		t.g.log.Info("lease renewed in time, nobody had taken over")
		t.deaf()
	case !live && !t.suspended && t.g.lease.Load() != nil:
		t.suspended = true
		t.yieldSeat("the lease ran out")
		t.own.at = t.now // whatever the reason, trying now is right
		t.watch.broken, t.blind = true, t.watch.n
		err := t.own.err
		if err == nil {
			err = errSilence
		} else if full := publisher.Full(err); full != "" {
			err = errors.New(full)
		}
		t.g.log.Warn("lease could not be renewed, this replica holds still", "err", err)
	}
}

// deaf notes that nothing could be heard, so that nobody counts as silent for it.
func (t *term) deaf() {
	for _, m := range t.members {
		m.heard = t.now
	}
}

// publish tells the group's owner what may be done.
func (t *term) publish() {
	_, seated := t.plan.seat(t.key)
	switch {
	case t.suspended:
		t.g.troubled(because("the lease ran out: the replicas' bucket cannot be written", t.own.err))
		t.g.tell(Assignment{Epoch: t.plan.Epoch, Suspended: true}, nil)
		return
	case t.own.revision == 0:
		t.g.troubled(because("joining the other replicas", t.own.err))
	case t.slots == 0 && t.plan.full():
		t.g.standsBy("more replicas run than requests a minute are allowed: this one stands by until another one ends")
	case !seated, t.slots == 0:
		t.g.troubled("waiting for a part of the work: other replicas give it up, or their leases run out")
	default:
		t.g.troubled("")
	}
	members := len(t.plan.Seats)
	if !seated {
		members = 0
	}
	t.g.members.Store(int64(members))
	t.g.tell(Assignment{Epoch: t.plan.Epoch, Share: t.share(), Members: members}, t.owned)
}

// because adds to a trouble what is full, if that is its cause.
func because(trouble string, err error) string {
	if full := publisher.Full(err); full != "" {
		return trouble + "; " + full
	}
	return trouble
}

// share is this replica's slots as a part of its own limit.
func (t *term) share() float64 {
	limit := t.g.opts.Limit
	if limit == 0 {
		limit = t.plan.Limit
	}
	if limit == 0 {
		return 0
	}
	return min(float64(t.slots)/float64(limit), 1)
}

// leave says goodbye, so that the others need not wait for the lease.
func (t *term) leave() error {
	t.cancel()
	t.asides.Wait()
	if t.own.beat == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(t.g.opts.Lease/4, time.Second))
	defer cancel()
	// Nobody else writes the key but to evict, which says the same.
	r := t.own.record(t.g)
	r.Left, r.Posting = true, false
	data, err := encode(r)
	if err == nil {
		_, err = t.kv.Put(ctx, t.key, data)
	}
	if err != nil {
		return fmt.Errorf("leave the replicas: %w", err)
	}
	return nil
}
