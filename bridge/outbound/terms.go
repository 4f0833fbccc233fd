package outbound

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// Terms are the operator's wishes for one device.
type Terms struct {
	schedule.Terms
	// Paused: the device is not polled. The schedule's knowledge about it is kept.
	Paused bool
	// Controlled: live control decides a setting of the device.
	Controlled bool
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
		f.size.measure(f.policy.Len(), &f.wishes)
		f.mu.Unlock()
	}
	p.fleet.reportIntervals(p.log)
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
	d.terms = terms{Terms: w.Terms, paused: w.Paused, controlled: w.Controlled}
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
	d.terms = terms{Terms: w.Terms, paused: w.Paused, controlled: w.Controlled, memory: was.memory}
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
	timed              int     // devices with an interval of their own that are not paused
	demand             float64 // polls a minute that their intervals need
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
		w.timed += n
		w.demand += float64(n) * float64(time.Minute) / float64(t.Interval)
	}
	if w.timed == 0 {
		w.demand = 0 // removes rounding errors
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

// Short returns in one sentence that the budget cannot hold the intervals set by live control, or "".
func (p *Pool) Short() string {
	f := p.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wishes.impossible(f.pace.rate)
}

// reportIntervals logs once that the budget cannot hold the intervals of live
// control, and once that it can again.
func (f *fleet) reportIntervals(log *slog.Logger) {
	f.mu.Lock()
	reason := f.wishes.impossible(f.pace.rate)
	changed := (reason != "") != f.wishes.logged
	f.wishes.logged = reason != ""
	f.mu.Unlock()
	switch {
	case changed && reason != "":
		log.Warn("devices are polled less often than live control asks for", "reason", reason)
	case changed:
		log.Info("request budget suffices for the intervals of live control again")
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

const (
	// rememberEvery is the time between two writes of the schedule's memory.
	rememberEvery = time.Minute
	// rememberPause is the pause after each of the 256 partitions: 100,000 devices
	// take 40 s, at some 200 kB a second.
	rememberPause = 150 * time.Millisecond
	// recallPatience limits how long the memory may delay the first polls.
	recallPatience = time.Second
	// lastPatience limits how long the memory may delay a stop.
	lastPatience = time.Second
)

// Memory keeps the schedule's knowledge about devices, by token.
type Memory interface {
	Load(ctx context.Context) (fleet []byte, devices map[string][]byte, err error)
	Save(ctx context.Context, at time.Time, fleet []byte, devices map[string][]byte, pause time.Duration) error
}

// remembering keeps the schedule's memory.
type remembering struct {
	store Memory // nil means that there is none
	fleet *fleet
	log   *slog.Logger
}

// recollection is what the fleet does with the schedule's memory.
type recollection struct {
	fleet   bool              // that of the fleet was taken over, or there was none
	listed  bool              // the devices have been listed
	devices map[string][]byte // until they are listed, by token
}

// recall reads the memory beside the state, for devices that were not polled yet. The
// function that it returns takes the memory over if it is to be used. A failure costs
// no more than the knowledge.
func (m *remembering) recall(ctx context.Context) (finish func(use bool)) {
	if m.store == nil || !m.fleet.forgetful() {
		return func(bool) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan struct{})
	var fleet []byte
	var devices map[string][]byte
	var err error
	go func() {
		defer close(read)
		fleet, devices, err = m.store.Load(ctx)
	}()
	return func(use bool) {
		defer cancel()
		if !use {
			cancel()
		}
		timer := time.AfterFunc(recallPatience, cancel)
		defer timer.Stop()
		<-read
		if !use {
			return
		}
		if err != nil {
			m.log.Info("could not restore the schedule's memory, starting without it", "err", err)
			return
		}
		n := m.fleet.recall(fleet, devices)
		m.log.Info("restored the schedule's memory", "devices", len(devices), "restored", n)
	}
}

// forgetful reports whether a memory may be of use.
func (f *fleet) forgetful() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.memory.fleet || !f.memory.listed {
		return true
	}
	for _, d := range f.byID {
		if d.first && !d.terms.paused {
			return true
		}
	}
	return false
}

// recall takes memories over for the devices that were not polled yet. Those of
// devices that are not listed yet are kept until then. It returns the number of
// devices that were restored now.
func (f *fleet) recall(fleet []byte, devices map[string][]byte) (n int) {
	f.mu.Lock()
	if !f.memory.fleet {
		f.memory.fleet = true
		f.policy.RestoreFleet(fleet)
	}
	if !f.memory.listed {
		f.memory.devices = devices
	}
	list := make([]*device, 0, len(f.byID))
	for _, d := range f.byID {
		if d.first && !d.terms.paused && devices[d.token] != nil {
			list = append(list, d)
		}
	}
	f.mu.Unlock()
	for part := range slices.Chunk(list, chunk) {
		now := time.Now()
		f.mu.Lock()
		for _, d := range part {
			if d.active && d.first && !d.terms.paused && f.policy.Restore(now, d.id, devices[d.token]) {
				n++
			}
		}
		f.mu.Unlock()
	}
	return n
}

// remember returns the memory of the fleet, and of its devices by token.
func (f *fleet) remember() (fleet []byte, devices map[string][]byte) {
	f.mu.Lock()
	fleet = f.policy.AppendFleetMemory(nil)
	list := make([]*device, 0, len(f.byID))
	for _, d := range f.byID {
		list = append(list, d)
	}
	f.mu.Unlock()
	devices = make(map[string][]byte, len(list))
	for part := range slices.Chunk(list, chunk) {
		f.mu.Lock()
		for _, d := range part {
			memory := d.terms.memory // of a device that is paused
			if memory == nil && d.active {
				memory = f.policy.AppendMemory(nil, d.id)
			}
			if len(memory) > 0 {
				devices[d.token] = memory
			}
		}
		f.mu.Unlock()
	}
	return fleet, devices
}

// keep writes the schedule's memory once a minute until ctx is cancelled.
func (m *remembering) keep(ctx context.Context) {
	if m.store == nil {
		return
	}
	every(ctx, rememberEvery, func() { m.save(ctx, rememberPause) })
}

// last writes the schedule's memory at a stop.
func (m *remembering) last(grace time.Duration) {
	if m.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(lastPatience, grace/2))
	defer cancel()
	m.save(ctx, 0)
}

func (m *remembering) save(ctx context.Context, pause time.Duration) {
	now := time.Now()
	fleet, devices := m.fleet.remember()
	if len(devices) == 0 {
		return
	}
	if err := m.store.Save(ctx, now, fleet, devices, pause); err != nil && ctx.Err() == nil {
		m.log.Debug("could not store the schedule's memory", "err", err)
	}
}
