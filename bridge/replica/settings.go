package replica

import (
	"maps"
	"slices"
	"strings"
)

// Difference is a living replica that was told other settings than this one.
type Difference struct {
	Replica  string   // its id
	Settings []string // the names in Options.Settings, sorted
}

// String tells it in a few words: "b: devices, limits".
func (d Difference) String() string { return d.Replica + ": " + strings.Join(d.Settings, ", ") }

// Differences tells which living replicas were told other settings, by their
// ids. Who does not say what it was told, as earlier versions do not, is not
// among them.
func (g *Group) Differences() []Difference {
	if list := g.differences.Load(); list != nil {
		return *list
	}
	return nil
}

// differing gives the names of what two replicas were told differently. A name
// that only one of them knows is of another version, and says nothing.
func differing(mine, theirs map[string]string) (names []string) {
	for name, digest := range theirs {
		if own, known := mine[name]; known && own != digest {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// compare notices who was told other settings, and that it is over.
func (t *term) compare() {
	if !t.watch.synced {
		return
	}
	found := make(map[string]Difference)
	for key, m := range t.members {
		if len(m.differs) > 0 && key != t.key && m.revision > 0 && !m.record.Left && !t.silent(m) {
			// One id may stand for two processes for a while.
			names := append(slices.Clone(m.differs), found[m.record.ID].Settings...)
			slices.Sort(names)
			found[m.record.ID] = Difference{m.record.ID, slices.Compact(names)}
		}
	}
	g := t.g
	if len(found) == 0 && len(g.Differences()) == 0 {
		return
	}
	told := make(map[string]string)
	for _, d := range g.Differences() {
		told[d.Replica] = d.String()
	}
	for id, d := range found {
		if told[id] != d.String() {
			g.log.Warn("replica was told other settings than this one", "replica", id, "differs", strings.Join(d.Settings, ", "))
		}
		delete(told, id)
	}
	for _, id := range slices.Sorted(maps.Keys(told)) {
		g.log.Info("replica that was told other settings is gone, or told the same now", "replica", id)
	}
	list := slices.SortedFunc(maps.Values(found), func(a, b Difference) int { return strings.Compare(a.Replica, b.Replica) })
	g.differences.Store(&list)
}
