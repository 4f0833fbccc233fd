package inventory

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"plaspy-bridge/bridge/plaspy"
)

// readGroups reads the groups if the selection or the events need them. ok is
// false if they are unknown. If only the events need them, a failure is logged and
// the groups of the last reading stay in use: they must not hold up the list.
func (v *Inventory) readGroups(ctx context.Context) (groups []plaspy.Group, ok bool, err error) {
	selected := len(v.opts.Select.Groups) > 0
	if !selected && !v.opts.Groups && !v.useGroups.Load() {
		return nil, false, nil
	}
	groups, _, err = v.api.Groups(ctx)
	switch {
	case err == nil:
		v.reported.groupsErr = ""
		return groups, true, nil
	case selected || ctx.Err() != nil:
		return nil, false, err
	}
	if text := err.Error(); text != v.reported.groupsErr {
		v.reported.groupsErr = text
		v.log.Warn("could not read groups, keeping the previous ones", "err", err)
	}
	return nil, false, nil
}

// groupsOf returns the sorted ids of each device's groups. A group without an id
// counts by its name. Devices in the same groups share a list.
func groupsOf(groups []plaspy.Group) map[string][]string {
	all := make(map[string][]string)
	for _, g := range groups {
		id := cmp.Or(g.ID, g.Name)
		if id == "" {
			continue
		}
		for _, device := range g.Devices {
			all[device] = append(all[device], id)
		}
	}
	shared := make(map[string][]string)
	for device, ids := range all {
		slices.Sort(ids)
		ids = slices.Compact(ids)
		key := strings.Join(ids, "\x00")
		if shared[key] == nil {
			shared[key] = slices.Clip(slices.Clone(ids))
		}
		all[device] = shared[key]
	}
	return all
}

// Groups returns the sorted ids of a device's groups, by its token. They are known
// only if [Options.Groups] is set. The result must not be changed.
func (v *Inventory) Groups(token string) []string {
	if all := v.groups.Load(); all != nil {
		return (*all)[token]
	}
	return nil
}

// keepGroups stores the groups of the devices of a list.
func (v *Inventory) keepGroups(list map[string]entry, groups []plaspy.Group) {
	byID := groupsOf(groups)
	byToken := make(map[string][]string, len(byID))
	for token, e := range list {
		if ids := byID[e.id]; ids != nil {
			byToken[token] = ids
		}
	}
	v.groups.Store(&byToken)
}
