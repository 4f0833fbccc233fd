package inventory

import (
	"slices"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
)

// patterns are those of a [Selection].
type patterns struct{ devices, exclude []string }

// Choose replaces the patterns of the selection: any of devices, or all if it is
// empty, and none of exclude. It does not block. Run follows at once, and reads the
// list for devices that the stream has never seen.
func (v *Inventory) Choose(devices, exclude []string) {
	v.chosen.Store(&patterns{devices, exclude})
	v.Compare()
}

// UseGroups has the members of all groups read with each list, and with the first
// call at once, for [Inventory.Memberships]. It does not block.
func (v *Inventory) UseGroups(on bool) {
	if v.useGroups.Swap(on) != on && on {
		v.hurry.Store(true)
		v.Compare()
	}
}

// Memberships returns the ids and names of a device's groups, by its token. They
// are encoded as tokens are, and sorted. They are known only after
// [Inventory.UseGroups]. The result must not be changed.
func (v *Inventory) Memberships(token string) []string {
	if all := v.members.Load(); all != nil {
		return (*all)[token]
	}
	return nil
}

// keepMembers stores the groups of each device, by id and name.
func (v *Inventory) keepMembers(groups []plaspy.Group) {
	all := make(map[string][]string)
	for _, g := range groups {
		for _, name := range []string{g.ID, g.Name} {
			if name == "" {
				continue
			}
			for _, device := range g.Devices {
				all[publisher.Encode(device)] = append(all[publisher.Encode(device)], publisher.Encode(name))
			}
		}
	}
	for token, names := range all {
		slices.Sort(names)
		all[token] = slices.Compact(names)
	}
	v.members.Store(&all)
}

// rechoose applies patterns that were set since the last call. Devices of which the
// stream has no event wait for the next list, which has what to publish of them.
func (v *Inventory) rechoose() {
	sel := v.chosen.Swap(nil)
	if sel == nil {
		return
	}
	v.mu.Lock()
	v.dir.sel.Devices, v.dir.sel.Exclude = sel.devices, sel.exclude
	unmet := v.dir.rechoose()
	fleet := v.dir.fleet()
	state := *v.state.Load()
	state.Devices = v.dir.list.chosen
	v.mu.Unlock()
	if unmet {
		v.hurry.Store(true)
	}
	if !state.Read {
		return // the first list is on its way
	}
	v.state.Store(&state)
	v.log.Info("device selection changed", "devices", state.Devices, "listed", state.Listed)
	v.fleet.Follow(fleet)
}

// rechoose decides again which of the listed devices are polled. It returns true if
// the list has to be read for some.
func (dir *directory) rechoose() (unmet bool) {
	dir.list.chosen = 0
	for _, r := range dir.records {
		matches := r.listed && r.member && dir.sel.Matches(r.id)
		known := r.chosen || r.event.known()
		unmet = unmet || matches && !known
		if r.chosen = matches && known; r.chosen {
			dir.list.chosen++
		}
	}
	return unmet
}
