package inventory

import "fmt"

// reported remembers the log lines about the last list: each is logged once.
type reported struct {
	left       map[string]string
	patterns   map[string]bool
	groups     map[string]bool
	unreadable string
	groupsErr  string
	doubt      bool
}

// report logs the unusable parts of a list, and settings without effect.
func (v *Inventory) report(list map[string]entry, left map[string]string, skipped []error, unknown []string) {
	text := ""
	if len(skipped) > 0 {
		text = fmt.Sprintf("%d entries, the first: %v", len(skipped), skipped[0])
	}
	if text != "" && text != v.reported.unreadable {
		v.log.Warn("device list has malformed entries", "err", text)
	}
	v.reported.unreadable = text
	for id, reason := range left {
		if v.reported.left[id] != reason {
			v.log.Warn("ignoring a device of the list", "device_id", id, "reason", reason)
		}
	}
	v.reported.left = left
	v.reportSelection(list, unknown)
}

// reportSelection logs once each pattern that matches no device, and each group
// that does not exist.
func (v *Inventory) reportSelection(list map[string]entry, unknown []string) {
	used := make(map[string]bool)
	for _, e := range list {
		v.opts.Select.use(e.id, used)
	}
	if v.reported.patterns == nil {
		v.reported.patterns, v.reported.groups = make(map[string]bool), make(map[string]bool)
	}
	if len(list) > 0 {
		for _, p := range v.opts.Select.unused(used) {
			if !v.reported.patterns[p] {
				v.reported.patterns[p] = true
				v.log.Warn("BRIDGE_DEVICES pattern matches no device", "pattern", p)
			}
		}
	}
	for _, name := range unknown {
		if !v.reported.groups[name] {
			v.reported.groups[name] = true
			v.log.Warn("BRIDGE_GROUPS names a group that does not exist", "group", name)
		}
	}
}

// reportDoubt logs that a list was not believed.
func (v *Inventory) reportDoubt(l listing) {
	doubt := l.missing > 0 || l.left > 0
	if doubt && !v.reported.doubt {
		v.log.Warn("device list is empty or much shorter than before, keeping all devices until the next refresh confirms it",
			"listed", l.listed, "missing", max(l.missing, l.left))
	}
	v.reported.doubt = doubt
}
