package harness_test

import (
	"fmt"
	"time"

	"plaspy-bridge/bridge/harness"
)

// handover is what became of the devices of a bridge that went at an instant.
type handover struct {
	devices     int           // that it was the last to ask about
	first, last time.Duration // from then on until the others had asked about one of them, and all
	gap         time.Duration // the longest that one of them was not asked about
}

func (h handover) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	return fmt.Sprintf("%d devices, the first asked about by others after %v, all after %v, longest unpolled %v", h.devices, round(h.first), round(h.last), round(h.gap))
}

// handedOver looks at the devices of a bridge that went, or came to stand still,
// at an instant.
func handedOver(r *harness.Rig, bridge int, at time.Time) handover {
	var h handover
	lives := r.Lives()
	for _, id := range r.API.Sim.IDs() {
		list := r.Answers(id)
		next := 0
		for next < len(list) && list[next].At.Before(at) {
			next++
		}
		if next == 0 || lives[list[next-1].Life].Bridge != bridge {
			continue
		}
		before := list[next-1].At
		for next < len(list) && lives[list[next].Life].Bridge == bridge { // still on their way
			before = list[next].At
			next++
		}
		asked := time.Now()
		if next < len(list) {
			asked = list[next].At
		}
		if took := asked.Sub(at); h.devices == 0 || took < h.first {
			h.first = took
		}
		h.devices++
		h.last = max(h.last, asked.Sub(at))
		h.gap = max(h.gap, asked.Sub(before))
	}
	return h
}

// gap is a time in which a device was not asked about.
type gap struct {
	device        string
	from, to      time.Duration // since the beginning of what was looked at
	before, after int           // bridges; -1: none
}

func (g gap) length() time.Duration { return g.to - g.from }

func (g gap) String() string {
	return fmt.Sprintf("%s was not asked about for %v, from %v (bridge %d) to %v (bridge %d)",
		g.device, g.length().Round(10*time.Millisecond), g.from.Round(10*time.Millisecond), g.before, g.to.Round(10*time.Millisecond), g.after)
}

// longest is the longest time that a device was not asked about between two
// instants.
func longest(r *harness.Rig, from, to time.Time) (worst gap) {
	lives := r.Lives()
	for _, id := range r.API.Sim.IDs() {
		g := gap{device: id, before: -1}
		next := func(at time.Time, bridge int) {
			g.to, g.after = at.Sub(from), bridge
			if g.length() > worst.length() {
				worst = g
			}
			g.from, g.before = g.to, bridge
		}
		for _, a := range r.Answers(id) {
			if !a.At.Before(from) && !a.At.After(to) {
				next(a.At, lives[a.Life].Bridge)
			}
		}
		next(to, -1)
	}
	return worst
}
