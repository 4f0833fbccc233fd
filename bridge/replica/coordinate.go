package replica

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/replica/plan"
)

// planRefresh keeps the server from expiring the plan.
const planRefresh = 10 * time.Minute

// coordinator evicts replicas that are gone and writes the plans, if this replica is the
// one that does. Any replica may be at any time.
type coordinator struct {
	s       *session
	watch   *watch
	members *members
	own     *ownRecord
	plan    *planState
	obey    func(p plan.Plan, revision uint64) // takes a plan that was written

	writing   bool         // the next plan is being written
	notBefore clock.Moment // the earliest time to write it
}

// coordinates reports whether this replica writes the plans: the first live member
// of the plan does, or the first of all replicas if no member is alive. Two writers
// at once are harmless, because the write of one fails.
func (c *coordinator) coordinates() bool {
	if !c.watch.synced || c.own.revision == 0 || !c.s.g.Live() || c.s.now.Before(c.s.g.quarantine) {
		return false
	}
	writes := func(m *member) bool {
		unaware := c.plan.unreadable && m.record.Ack < c.plan.Epoch // it may not know the plan
		return c.members.alive(m) && !unaware
	}
	for _, s := range c.plan.Seats {
		if s.Key == c.s.key {
			return true
		}
		if writes(c.members.get(s.Key)) {
			return false
		}
	}
	for key, m := range c.members.byKey {
		if key < c.s.key && m.revision > 0 && writes(m) {
			return false
		}
	}
	return true
}

// coordinate evicts silent members, and writes the next plan if one is due.
func (c *coordinator) coordinate() {
	if c.s.lost != nil || !c.coordinates() {
		return
	}
	for _, m := range c.members.byKey {
		if (!m.record.Left || m.record.Posting) && !m.evicting && c.members.silent(m) {
			c.evict(m)
		}
	}
	if c.writing || c.s.now.Before(c.notBefore) || c.behind() {
		return
	}
	s := plan.Situation{
		Plan: c.plan.Plan, Gone: c.members.gone, Committed: c.plan.agreed || c.plan.Epoch == 0, Idle: c.s.now.Since(c.plan.agreedSince),
		Limit: c.members.lowestLimit(), Living: c.living(), Patience: 2 * c.s.g.opts.Lease,
	}
	next, again, due := s.Draft()
	if !due && again > 0 && again < c.s.g.opts.Lease/20 { // sooner than the next tick
		time.AfterFunc(again, c.s.g.notify)
	}
	switch {
	case due:
		c.write(next)
	case c.plan.Epoch > 0 && (c.plan.unreadable || c.s.now.Since(c.plan.seen) >= planRefresh):
		c.write(c.plan.Plan)
	}
}

// behind reports whether the plan cannot be read and another member knows a later one
// than this replica. That member writes it again, or is evicted.
func (c *coordinator) behind() bool {
	if !c.plan.unreadable {
		return false
	}
	for key, m := range c.members.byKey {
		if key != c.s.key && !m.record.Left && m.record.Ack > c.plan.Epoch {
			return true
		}
	}
	return false
}

// living lists the replicas that may have a seat. A newcomer waits a moment, so that
// replicas that start together join with one plan.
func (c *coordinator) living() []plan.Candidate {
	ids := make(map[string]bool) // of the members of the plan
	for _, s := range c.plan.Seats {
		if m := c.members.byKey[s.Key]; m != nil && s.Key != c.s.key {
			ids[m.record.ID] = true
		}
	}
	mine := c.own.record()
	all := []plan.Candidate{candidateOf(c.s.key, mine)}
	for key, m := range c.members.byKey {
		if m.record.Left || key == c.s.key {
			continue
		}
		if _, seated := c.plan.Seat(key); !seated {
			age := c.s.now.Since(m.first)
			// A newcomer with the name of a member is most likely the same replica after
			// a restart. Its former process will be evicted shortly.
			twin := ids[m.record.ID] || m.record.ID == mine.ID
			if m.revision == 0 || c.members.silent(m) || age < c.s.g.opts.Lease/50 || twin && age < 2*c.s.g.opts.Lease {
				continue
			}
		}
		all = append(all, candidateOf(key, m.record))
	}
	slices.SortFunc(all, func(a, b plan.Candidate) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

func candidateOf(key string, r record) plan.Candidate {
	return plan.Candidate{
		Key: key, ID: r.ID, Load: plan.Bounded(r.Load), Posts: plan.Bounded(r.Posts),
		Consumes: r.Inbound == inboundOn || r.Inbound == inboundUnable, Able: r.Inbound == inboundOn,
	}
}

// evict replaces the record of a silent member.
func (c *coordinator) evict(m *member) {
	m.evicting = true
	seen := *m
	c.s.async(func(ctx context.Context) func() {
		revision, left, err := evict(ctx, c.s.kv, seen)
		return func() {
			m.evicting = false
			if !left {
				m.heard = c.s.now // it is alive, or is tried again later
				if revision > 0 {
					m.revision = revision
				}
				c.s.g.log.Debug("could not evict the silent replica", "replica", seen.record.ID, "err", err)
				return
			}
			m.revision, m.record.Left, m.record.Posting = revision, true, false
			c.s.g.log.Warn("replica stopped renewing its lease and was evicted", "replica", seen.record.ID)
		}
	})
}

// write writes a plan at the revision of the one that it follows.
func (c *coordinator) write(next plan.Plan) {
	c.writing = true
	revision := c.plan.revision
	c.s.async(func(ctx context.Context) func() {
		revision, err := put(ctx, c.s.kv, planKey, next, revision)
		return func() {
			c.writing = false
			if err != nil {
				// The watch shows the plan in force, even if this one was stored and only
				// the answer was lost.
				c.notBefore = c.s.now.Add(c.s.g.opts.Lease / 20)
				c.s.g.log.Debug("could not write the plan", "epoch", next.Epoch, "err", err)
				return
			}
			c.obey(next, revision)
		}
	})
}

// forget drops members that are gone, have no seat and have no posts in flight.
func (c *coordinator) forget() {
	for key, m := range c.members.byKey {
		if _, seated := c.plan.Seat(key); m.record.Left && !m.record.Posting && !m.evicting && !seated {
			delete(c.members.byKey, key)
			c.clean(m)
		}
	}
}

// clean deletes the key of a replica that is gone and in no plan.
func (c *coordinator) clean(m *member) {
	if !c.coordinates() {
		return
	}
	seen := *m
	c.s.async(func(ctx context.Context) func() {
		err := c.s.kv.Delete(ctx, seen.key, jetstream.LastRevision(seen.revision))
		return func() {
			if err != nil {
				c.s.g.log.Debug("could not delete the key of a replica that is gone", "err", err)
			}
		}
	})
}
