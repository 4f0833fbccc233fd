package replica

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/plan"
)

// planRefresh keeps the server from expiring the plan.
const planRefresh = 10 * time.Minute

// silent reports whether a member may be evicted.
func (t *membership) silent(m *member) bool { return t.now.Since(m.heard) >= t.g.opts.Lease }

// alive reports whether a member has neither left nor fallen silent.
func alive(t *membership, m *member) bool { return !m.record.Left && !t.silent(m) }

// coordinates reports whether this replica writes the plans: the first live member
// of the plan does, or the first of all replicas if no member is alive. Two writers
// at once are harmless, because the write of one fails.
func (t *membership) coordinates() bool {
	if !t.watch.synced || t.own.revision == 0 || !t.g.Live() || t.now.Before(t.g.quarantine) {
		return false
	}
	writes := func(m *member) bool {
		unaware := t.plan.unreadable && m.record.Ack < t.plan.Epoch // it may not know the plan
		return alive(t, m) && !unaware
	}
	for _, s := range t.plan.Seats {
		if s.Key == t.key {
			return true
		}
		if writes(t.member(s.Key)) {
			return false
		}
	}
	for key, m := range t.members {
		if key < t.key && m.revision > 0 && writes(m) {
			return false
		}
	}
	return true
}

// coordinate evicts silent members, and writes the next plan if one is due.
func (t *membership) coordinate() {
	if t.lost != nil || !t.coordinates() {
		return
	}
	for _, m := range t.members {
		if (!m.record.Left || m.record.Posting) && !m.evicting && t.silent(m) {
			t.evict(m)
		}
	}
	if t.plan.writing || t.now.Before(t.plan.notBefore) || behind(t) {
		return
	}
	s := plan.Situation{
		Plan: t.plan.Plan, Gone: func(key string) bool { return gone(t.members, key) }, Committed: t.plan.agreed || t.plan.Epoch == 0, Idle: t.now.Since(t.plan.agreedSince),
		Limit: lowestLimit(t.g.opts.Limit, t.members), Living: living(t), Patience: 2 * t.g.opts.Lease,
	}
	next, again, due := s.Draft()
	if !due && again > 0 && again < t.g.opts.Lease/20 { // sooner than the next tick
		time.AfterFunc(again, t.g.notify)
	}
	switch {
	case due:
		t.write(next)
	case t.plan.Epoch > 0 && (t.plan.unreadable || t.now.Since(t.plan.seen) >= planRefresh):
		t.write(t.plan.Plan)
	}
}

// behind reports whether the plan cannot be read and another member knows a later one
// than this replica. That member writes it again, or is evicted.
func behind(t *membership) bool {
	if !t.plan.unreadable {
		return false
	}
	for key, m := range t.members {
		if key != t.key && !m.record.Left && m.record.Ack > t.plan.Epoch {
			return true
		}
	}
	return false
}

// gone reports whether a member has left or was evicted.
func gone(members map[string]*member, key string) bool {
	m := members[key]
	return m != nil && m.record.Left
}

// living lists the replicas that may have a seat. A newcomer waits a moment, so that
// replicas that start together join with one plan.
func living(t *membership) []plan.Candidate {
	ids := make(map[string]bool) // of the members of the plan
	for _, s := range t.plan.Seats {
		if m := t.members[s.Key]; m != nil && s.Key != t.key {
			ids[m.record.ID] = true
		}
	}
	mine := t.own.record(t.g)
	all := []plan.Candidate{candidateOf(t.key, mine)}
	for key, m := range t.members {
		if m.record.Left || key == t.key {
			continue
		}
		if _, seated := t.plan.Seat(key); !seated {
			age := t.now.Since(m.first)
			// A newcomer with the name of a member is most likely the same replica after
			// a restart. Its former process will be evicted shortly.
			twin := ids[m.record.ID] || m.record.ID == mine.ID
			if m.revision == 0 || t.silent(m) || age < t.g.opts.Lease/50 || twin && age < 2*t.g.opts.Lease {
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

// lowestLimit returns the lowest limit of the live replicas. The limits differ only
// by mistake, or while they are being changed.
func lowestLimit(own int, members map[string]*member) int {
	lowest := own
	for _, m := range members {
		if l := m.record.Limit; !m.record.Left && l > 0 && (l < lowest || lowest == 0) {
			lowest = l
		}
	}
	return lowest
}

func (t *membership) evict(m *member) {
	m.evicting = true
	seen := *m
	t.async(func(ctx context.Context) func() {
		revision, left, err := evict(ctx, t.kv, seen)
		return func() {
			m.evicting = false
			if !left {
				m.heard = t.now // it is alive, or is tried again later
				if revision > 0 {
					m.revision = revision
				}
				t.g.log.Debug("could not evict the silent replica", "replica", seen.record.ID, "err", err)
				return
			}
			m.revision, m.record.Left, m.record.Posting = revision, true, false
			t.g.log.Warn("replica stopped renewing its lease and was evicted", "replica", seen.record.ID)
		}
	})
}

// write writes a plan at the revision of the one that it follows.
func (t *membership) write(next plan.Plan) {
	t.plan.writing = true
	revision := t.plan.revision
	t.async(func(ctx context.Context) func() {
		revision, err := put(ctx, t.kv, planKey, next, revision)
		return func() {
			t.plan.writing = false
			if err != nil {
				// The watch shows the plan in force, even if this one was stored and only
				// the answer was lost.
				t.plan.notBefore = t.now.Add(t.g.opts.Lease / 20)
				t.g.log.Debug("could not write the plan", "epoch", next.Epoch, "err", err)
				return
			}
			t.obey(next, revision)
		}
	})
}

// clean deletes the key of a replica that is gone and in no plan.
func (t *membership) clean(m *member) {
	if !t.coordinates() {
		return
	}
	seen := *m
	t.async(func(ctx context.Context) func() {
		err := t.kv.Delete(ctx, seen.key, jetstream.LastRevision(seen.revision))
		return func() {
			if err != nil {
				t.g.log.Debug("could not delete the key of a replica that is gone", "err", err)
			}
		}
	})
}
