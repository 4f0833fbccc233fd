package outbound

import (
	"context"
	"fmt"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// Terms are the operator's wishes for one device.
type Terms struct {
	schedule.Terms
	// Paused: the device is not polled. The schedule's knowledge about it is kept.
	Paused bool
	// Control is shown by [Pool.Why], as JSON: the source of the wishes. Nil means
	// that none of them was set at run time.
	Control any
}

// TermsOf returns the wishes for a device. groups are the ids and names of its
// groups, encoded and sorted, if they are known. It must be quick and must not
// call the pool.
type TermsOf func(id, token string, groups []string) Terms

// terms is what the fleet keeps of the wishes for a device.
type terms struct {
	schedule.Terms
	paused     bool
	controlled bool
	memory     []byte // of the schedule, while the device is paused
}

// SetTerms sets the wishes for all devices, in place of those before. If groups is
// true, the members of the account's groups are read, now and with each list.
func (p *Pool) SetTerms(of TermsOf, groups bool) {
	p.inventory.UseGroups(groups)
	p.fleet.mu.Lock()
	p.fleet.wishes.of = of
	p.fleet.mu.Unlock()
	p.reviseTerms()
}

// reviseTerms asks for the wishes for all devices again. The fleet's mutex is held
// for a moment at a time.
func (p *Pool) reviseTerms() {
	f := p.fleet
	f.mu.Lock()
	list := make([]*device, 0, len(f.byID))
	for _, d := range f.byID {
		list = append(list, d)
	}
	f.mu.Unlock()
	for part := range slices.Chunk(list, chunk) {
		now := time.Now()
		f.mu.Lock()
		for _, d := range part {
			if d.active {
				f.reviseLocked(now, d)
			}
		}
		f.setDevices(f.policy.Len())
		f.polled.Store(int64(f.policy.Len()))
		f.mu.Unlock()
	}
	p.reportIntervals()
	nudge(p.wake)
}

// wishesLocked returns the present wishes for a device.
func (f *fleet) wishesLocked(d *device) Terms {
	if f.wishes.of == nil {
		return Terms{}
	}
	return f.wishes.of(d.id, d.token, f.wishes.groups(d.token))
}

// enterLocked puts an active device into the schedule, unless it is paused.
func (f *fleet) enterLocked(now time.Time, d *device) {
	w := f.wishesLocked(d)
	d.terms = terms{Terms: w.Terms, paused: w.Paused, controlled: w.Control != nil}
	f.wishes.count(&d.terms, 1)
	if !d.terms.paused {
		f.scheduleLocked(now, d)
	}
}

// scheduleLocked adds a device to the schedule, with what the schedule knew of it.
func (f *fleet) scheduleLocked(now time.Time, d *device) {
	memory := d.terms.memory
	if memory == nil {
		memory = f.memory.devices[d.token]
	}
	if memory != nil {
		f.policy.Restore(now, d.id, memory)
	} else {
		f.policy.Add(now, d.id)
	}
	d.terms.memory = nil
	f.policy.SetTerms(now, d.id, d.terms.Terms)
}

// leaveLocked takes a device out of the schedule that is not active any more.
func (f *fleet) leaveLocked(now time.Time, d *device) {
	f.wishes.count(&d.terms, -1)
	d.terms = terms{}
	f.policy.Remove(now, d.id)
}

// reviseLocked applies the present wishes for an active device.
func (f *fleet) reviseLocked(now time.Time, d *device) {
	w, was := f.wishesLocked(d), d.terms
	f.wishes.count(&d.terms, -1)
	d.terms = terms{Terms: w.Terms, paused: w.Paused, controlled: w.Control != nil, memory: was.memory}
	f.wishes.count(&d.terms, 1)
	switch {
	case d.terms.paused && !was.paused:
		d.terms.memory = f.policy.AppendMemory(nil, d.id)
		f.policy.Remove(now, d.id)
		f.markLocked(d)
	case !d.terms.paused && was.paused:
		f.scheduleLocked(now, d)
		f.markLocked(d)
	case !d.terms.paused && d.terms.Terms != was.Terms:
		f.policy.SetTerms(now, d.id, d.terms.Terms)
		f.markLocked(d)
	}
}

// wishes returns the wishes for each device, and holds their sums over the active
// devices.
type wishes struct {
	of     TermsOf                     // nil: no wishes
	groups func(token string) []string // ids and names of a device's groups

	controlled, paused int
	demand             float64 // polls a minute that the intervals of devices that are not paused need
	logged             bool    // it was logged that the budget cannot hold them
}

// count adds a device's wishes to the sums, or takes them away.
func (w *wishes) count(t *terms, n int) {
	if t.controlled {
		w.controlled += n
	}
	if t.paused {
		w.paused += n
	} else if t.Interval > 0 {
		w.demand += float64(n) * float64(time.Minute) / float64(t.Interval)
	}
}

// impossible returns why the devices are not polled as often as their
// intervals ask for with a rate of polls a minute, or "".
func (w *wishes) impossible(rate float64) string {
	if w.demand <= rate || rate <= 0 {
		return ""
	}
	return fmt.Sprintf("the request budget cannot hold the intervals set by live control: they need %.0f polls a minute, it has room for %.0f", w.demand, rate)
}

// reportIntervals logs once that the budget cannot hold the intervals of live
// control, and once that it can again.
func (p *Pool) reportIntervals() {
	f := p.fleet
	f.mu.Lock()
	reason := f.wishes.impossible(f.pace.rate)
	changed := (reason != "") != f.wishes.logged
	f.wishes.logged = reason != ""
	f.mu.Unlock()
	switch {
	case changed && reason != "":
		p.log.Warn("devices are polled less often than live control asks for", "reason", reason)
	case changed:
		p.log.Info("the request budget holds the intervals of live control again")
	}
}

// controls returns the sums of the wishes.
func (f *fleet) controls() wishes {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wishes
}

// termsEvery is the time between two looks whether the budget holds the intervals.
const termsEvery = 5 * time.Second

// every calls f again and again until ctx is cancelled.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// Select replaces the patterns that choose which devices are polled: any of
// devices, or all if it is empty, and none of exclude.
func (p *Pool) Select(devices, exclude []string) { p.inventory.Choose(devices, exclude) }
