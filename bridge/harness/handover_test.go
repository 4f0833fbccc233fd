package harness_test

import (
	"fmt"
	"time"

	"plaspy-bridge/bridge/harness"
)

// handover describes the devices of a bridge that ended at an instant.
type handover struct {
	devices     int           // that it polled last
	first, last time.Duration // from then until the others had polled the first of them, and all
	gap         time.Duration // the longest time without a poll of one of them
}

func (h handover) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	return fmt.Sprintf("%d devices, the first polled by others after %v, all after %v, longest unpolled %v", h.devices, round(h.first), round(h.last), round(h.gap))
}

// handedOver examines the devices of a bridge that ended or was suspended at an instant.
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
		for next < len(list) && lives[list[next].Life].Bridge == bridge { // its last requests
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

// gap is a span in which a device was not polled.
type gap struct {
	device        string
	from, to      time.Duration // since the beginning of the examined time
	before, after int           // the polling bridges, or -1
}

func (g gap) length() time.Duration { return g.to - g.from }

func (g gap) String() string {
	return fmt.Sprintf("%s was not polled for %v, from %v (bridge %d) to %v (bridge %d)",
		g.device, g.length().Round(10*time.Millisecond), g.from.Round(10*time.Millisecond), g.before, g.to.Round(10*time.Millisecond), g.after)
}

// longest returns the longest gap of any device between two instants.
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
