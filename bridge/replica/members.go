package replica

import (
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
)

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

// members are the other replicas, as the watch shows them.
type members struct {
	s     *session
	watch *watch
	byKey map[string]*member
}

// get returns the state of a replica, and adds it if it is not known yet.
func (l *members) get(key string) *member {
	m := l.byKey[key]
	if m == nil {
		m = &member{key: key, first: l.s.now, heard: l.s.now, watched: l.watch.n}
		l.byKey[key] = m
	}
	return m
}

// see takes an entry of another replica's key: its record if put is true, else something
// else or a deletion.
func (l *members) see(e jetstream.KeyValueEntry, r record, put, seated bool) {
	if _, known := l.byKey[e.Key()]; !put && !seated && !known {
		return // a remaining key of a replica that is long gone
	}
	m := l.get(e.Key())
	if m.revision != e.Revision() || m.watched != l.watch.n {
		m.heard = l.s.now
	}
	m.revision, m.watched = e.Revision(), l.watch.n
	if put && r.Beat >= m.record.Beat { // an entry of another program does not replace the member's own
		m.record = r
		m.differs = differing(l.s.g.opts.Settings, r.Settings)
	}
}

// missed handles members that a new watch did not show.
func (l *members) missed() {
	for _, m := range l.byKey {
		if m.watched != l.watch.n {
			m.revision, m.heard, m.watched = 0, l.s.now, l.watch.n
		}
	}
}

// resetSilence restarts the silence of all members after a time in which this
// replica could not watch them.
func (l *members) resetSilence() {
	for _, m := range l.byKey {
		m.heard = l.s.now
	}
}

// silent reports whether a member may be evicted.
func (l *members) silent(m *member) bool { return l.s.now.Since(m.heard) >= l.s.g.opts.Lease }

// alive reports whether a member has neither left nor fallen silent.
func (l *members) alive(m *member) bool { return !m.record.Left && !l.silent(m) }

// gone reports whether a member has left or was evicted.
func (l *members) gone(key string) bool {
	m := l.byKey[key]
	return m != nil && m.record.Left
}

// earlierVersions reports whether a replica of an earlier version is alive.
func (l *members) earlierVersions() bool {
	for key, m := range l.byKey {
		if key != l.s.key && m.record.Inbound == "" && m.record.ID != "" && m.revision > 0 && l.alive(m) {
			return true
		}
	}
	return false
}

// lowestLimit returns the lowest limit of the live replicas. The limits differ only
// by mistake, or while they are being changed.
func (l *members) lowestLimit() int {
	lowest := l.s.g.opts.Limit
	for _, m := range l.byKey {
		if limit := m.record.Limit; !m.record.Left && limit > 0 && (limit < lowest || lowest == 0) {
			lowest = limit
		}
	}
	return lowest
}

// compare logs replicas with different settings, and when that ends.
func (l *members) compare() {
	if !l.watch.synced {
		return
	}
	found := make(map[string]Difference)
	for key, m := range l.byKey {
		if len(m.differs) > 0 && key != l.s.key && m.revision > 0 && l.alive(m) {
			// One id may stand for two processes for a while.
			names := append(slices.Clone(m.differs), found[m.record.ID].Settings...)
			slices.Sort(names)
			found[m.record.ID] = Difference{m.record.ID, slices.Compact(names)}
		}
	}
	g := l.s.g
	if len(found) == 0 && len(g.Differences()) == 0 {
		return
	}
	logged := make(map[string]string)
	for _, d := range g.Differences() {
		logged[d.Replica] = d.String()
	}
	for id, d := range found {
		if logged[id] != d.String() {
			g.log.Warn("replica has different settings", "replica", id, "differs", strings.Join(d.Settings, ", "))
		}
		delete(logged, id)
	}
	for _, id := range slices.Sorted(maps.Keys(logged)) {
		g.log.Info("replica no longer has different settings", "replica", id)
	}
	list := slices.SortedFunc(maps.Values(found), func(a, b Difference) int { return strings.Compare(a.Replica, b.Replica) })
	g.differences.Store(&list)
}
