package inventory

import (
	"slices"

	"plaspy-bridge/bridge/glob"
	"plaspy-bridge/bridge/plaspy"
)

// Selection chooses the devices to poll. A pattern is an id or a glob (*, ?,
// [a-z]), which matches any id, also one with slashes. The zero Selection
// chooses all devices.
type Selection struct {
	Devices []string // any of these; empty means all
	Exclude []string // none of these
	Groups  []string // ids or names: in any of these groups; empty means all
}

// Matches reports whether an id is chosen, groups aside.
func (s *Selection) Matches(id string) bool {
	return (len(s.Devices) == 0 || matchesAny(s.Devices, id)) && !matchesAny(s.Exclude, id)
}

// Choice is the result of a selection.
type Choice struct {
	Listed  int      // usable devices in the list
	Chosen  int      // of these, chosen to be polled
	Unused  []string // patterns of [Selection.Devices] that match no device
	Unknown []string // names of [Selection.Groups] that are no group
}

// Choose applies the selection to a list as the API returned it. The groups are
// used only if the selection names any.
func (s *Selection) Choose(devices []plaspy.Device, groups []plaspy.Group) Choice {
	members, unknown := s.members(groups)
	c := Choice{Unknown: unknown}
	used := make(map[string]bool, len(s.Devices))
	for id := range listedIDs(devices) {
		c.Listed++
		s.use(id, used)
		if s.Matches(id) && (members == nil || members[id]) {
			c.Chosen++
		}
	}
	c.Unused = s.unused(used)
	return c
}

// use notes which patterns match an id.
func (s *Selection) use(id string, used map[string]bool) {
	for _, p := range s.Devices {
		if !used[p] && glob.Match(p, id) {
			used[p] = true
		}
	}
}

func (s *Selection) unused(used map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(s.Devices), func(p string) bool { return used[p] })
}

// members returns the ids of the devices in the chosen groups, nil if no group is
// chosen, and the chosen groups that do not exist.
func (s *Selection) members(groups []plaspy.Group) (ids map[string]bool, unknown []string) {
	if len(s.Groups) == 0 {
		return nil, nil
	}
	ids = make(map[string]bool)
	for _, want := range s.Groups {
		found := false
		for _, g := range groups {
			if g.ID != want && g.Name != want {
				continue
			}
			found = true
			for _, id := range g.Devices {
				ids[id] = true
			}
		}
		if !found {
			unknown = append(unknown, want)
		}
	}
	return ids, unknown
}

func matchesAny(patterns []string, id string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob.Match(p, id) })
}
