package replica

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// planRefresh keeps the plan from being expired by the server.
const planRefresh = 10 * time.Minute

// silent reports whether a member may be evicted.
func (t *term) silent(m *member) bool { return t.now.since(m.heard) >= t.g.opts.Lease }

// presides reports whether it is for this replica to write plans: the first
// member of the plan that is alive, or of all replicas where none of them is.
// Two that both think so do no harm, since one of them finds the plan changed.
func (t *term) presides() bool {
	if !t.watch.synced || t.own.revision == 0 || !t.g.Live() || t.now.steady < t.g.quarantine.steady {
		return false
	}
	for _, s := range t.plan.Seats {
		if s.Key == t.key {
			return true
		}
		if m := t.member(s.Key); !m.record.Left && !t.silent(m) {
			return false
		}
	}
	for key, m := range t.members {
		if key < t.key && m.revision > 0 && !m.record.Left && !t.silent(m) {
			return false
		}
	}
	return true
}

// coordinate evicts who is silent, and writes the next plan where one is due.
func (t *term) coordinate() {
	if t.lost != nil || !t.presides() {
		return
	}
	for _, m := range t.members {
		if (!m.record.Left || m.record.Posting) && !m.evicting && t.silent(m) {
			t.evict(m)
		}
	}
	if t.planning || t.now.steady < t.planAfter.steady {
		return
	}
	s := situation{
		plan: t.plan, gone: t.gone, committed: t.agreed || t.plan.Epoch == 0, idle: t.now.since(t.settled),
		limit: t.limit(), living: t.living(), patience: 2 * t.g.opts.Lease,
	}
	next, _, due := s.draft() // the ticks of the loop are often enough to ask again
	switch {
	case due:
		t.write(next)
	case t.plan.Epoch > 0 && (t.spoiled || t.now.since(t.planSeen) >= planRefresh):
		t.write(t.plan)
	}
}

func (t *term) gone(key string) bool {
	m := t.members[key]
	return m != nil && m.record.Left
}

// living are those that may have a seat. A moment is waited for a newcomer, so
// that several that start together come in with one plan.
func (t *term) living() []candidate {
	ids := make(map[string]bool) // of those in the plan
	for _, s := range t.plan.Seats {
		if m := t.members[s.Key]; m != nil && s.Key != t.key {
			ids[m.record.ID] = true
		}
	}
	mine := t.own.record(t.g)
	all := []candidate{candidateOf(t.key, mine)}
	for key, m := range t.members {
		if m.record.Left || key == t.key {
			continue
		}
		if _, seated := t.plan.seat(key); !seated {
			age := t.now.since(m.first)
			// One with the name of a member is most likely the same replica,
			// started again, so that its former self will be evicted shortly.
			twin := ids[m.record.ID] || m.record.ID == mine.ID
			if m.revision == 0 || t.silent(m) || age < t.g.opts.Lease/50 || twin && age < 2*t.g.opts.Lease {
				continue
			}
		}
		all = append(all, candidateOf(key, m.record))
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.key, b.key) })
	return all
}

// limit is the lowest one of the living: they differ only by mistake, or while
// it is being changed.
func (t *term) limit() int {
	lowest := t.g.opts.Limit
	for _, m := range t.members {
		if l := m.record.Limit; !m.record.Left && l > 0 && (l < lowest || lowest == 0) {
			lowest = l
		}
	}
	return lowest
}

func (t *term) evict(m *member) {
	m.evicting = true
	seen := *m
	t.aside(func(ctx context.Context) func() {
		revision, left, err := evict(ctx, t.kv, seen)
		return func() {
			m.evicting = false
			if !left {
				m.heard = t.now // alive, or to be tried again later
				if revision > 0 {
					m.revision = revision
				}
				t.g.log.Debug("silent replica not evicted", "replica", seen.record.ID, "err", err)
				return
			}
			m.revision, m.record.Left, m.record.Posting = revision, true, false
			t.g.log.Warn("replica was not heard of and is replaced", "replica", seen.record.ID)
		}
	})
}

// write writes a plan at the revision of the one that it follows.
func (t *term) write(next plan) {
	t.planning = true
	revision := t.planRev
	t.aside(func(ctx context.Context) func() {
		revision, err := put(ctx, t.kv, planKey, next, revision)
		return func() {
			t.planning = false
			if err != nil {
				// The watch shows what is there, also where this was stored but
				// the answer was lost.
				t.planAfter = t.now
				t.planAfter.steady += t.g.opts.Lease / 20
				t.g.log.Debug("plan not written", "epoch", next.Epoch, "err", err)
				return
			}
			t.obey(next, revision)
		}
	})
}

// clean deletes the key of a replica that is gone and in no plan.
func (t *term) clean(m *member) {
	if !t.presides() {
		return
	}
	seen := *m
	t.aside(func(ctx context.Context) func() {
		err := t.kv.Delete(ctx, seen.key, jetstream.LastRevision(seen.revision))
		return func() {
			if err != nil {
				t.g.log.Debug("key of a replica that is gone not deleted", "err", err)
			}
		}
	})
}
