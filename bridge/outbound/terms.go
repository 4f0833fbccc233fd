package outbound

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/tick"
)

// Terms are the operator's settings for one device.
type Terms struct {
	schedule.Terms
	// Paused: the device is not polled. The schedule's knowledge about it is kept.
	Paused bool
	// Controlled: live control decides a setting of the device.
	Controlled bool
	// Control is the source of the terms, which [Pool.Why] shows as JSON. Nil means
	// that none of them was set at run time.
	Control any
}

// TermsOf returns the terms of a device. groups are the ids and names of its
// groups, encoded and sorted, if they are known. It must be quick and must not
// call the pool.
type TermsOf func(id, token string, groups []string) Terms

// terms is the part of [Terms] that the fleet keeps for each device.
type terms struct {
	schedule.Terms
	paused     bool
	controlled bool
	memory     []byte // of the schedule, while the device is paused
}

// noTerms are those of most devices.
var noTerms terms

// setTermsLocked replaces the terms of a device. memory is kept if the device is paused.
func setTermsLocked(d *device, w Terms, memory []byte) {
	d.terms = &noTerms
	if w.Terms != (schedule.Terms{}) || w.Paused || w.Controlled {
		d.terms = &terms{Terms: w.Terms, paused: w.Paused, controlled: w.Controlled}
	}
	if w.Paused {
		d.terms.memory = memory
	}
}

// SetTerms replaces the terms of all devices. If groups is true, the members of the
// account's groups are read, now and with each list.
func (p *Pool) SetTerms(of TermsOf, groups bool) {
	p.inventory.UseGroups(groups)
	p.fleet.setTerms(of)
	p.reviseTerms()
}

// reviseTerms asks for the terms of all devices again.
func (p *Pool) reviseTerms() {
	p.fleet.reviseTerms()
	p.fleet.reportIntervals(p.log)
	nudge(p.dispatcher.wake)
}

// setTerms replaces the terms. They apply from the next call of reviseTerms on.
func (f *fleet) setTerms(of TermsOf) {
	f.mu.Lock()
	f.table.totals.of = of
	f.mu.Unlock()
}

// reviseTerms asks for the terms of all devices again. The mutex is held for a moment at
// a time.
func (f *fleet) reviseTerms() {
	f.mu.Lock()
	list := f.devices.allPolled(f.table.policy.Len())
	f.mu.Unlock()
	f.inChunks(list, func(now time.Time, part []*device) {
		for _, d := range part {
			if d.active && f.table.revise(now, d) {
				f.changes.mark(d)
			}
		}
		f.setDevices(f.table.policy.Len())
		f.size.measure(f.table.policy.Len(), &f.table.totals)
	})
}

// inChunks calls do with the mutex held for a part of the list at a time.
func (f *fleet) inChunks(list []*device, do func(now time.Time, part []*device)) {
	for part := range slices.Chunk(list, chunk) {
		now := time.Now()
		f.mu.Lock()
		do(now, part)
		f.mu.Unlock()
	}
}

// terms returns the current terms of a device.
func (t *timetable) terms(d *device) Terms {
	if t.totals.of == nil {
		return Terms{}
	}
	return t.totals.of(d.id, d.token(), t.totals.groups(d.token()))
}

// enter puts an active device into the schedule, unless it is paused.
func (t *timetable) enter(now time.Time, d *device) {
	setTermsLocked(d, t.terms(d), nil)
	t.totals.count(d.terms, 1)
	if !d.terms.paused {
		t.schedule(now, d, nil)
	}
}

// schedule adds a device to the schedule, with the schedule's memory of it. A nil
// memory means that the fleet may have restored one.
func (t *timetable) schedule(now time.Time, d *device, memory []byte) {
	if memory == nil {
		memory = t.memory.devices[d.token()]
	}
	if memory != nil {
		t.policy.Restore(now, d.id, memory)
	} else {
		t.policy.Add(now, d.id)
	}
	t.policy.SetTerms(now, d.id, d.terms.Terms)
}

// leave takes a device out of the schedule that is not active any more.
func (t *timetable) leave(now time.Time, d *device) {
	t.totals.count(d.terms, -1)
	d.terms = &noTerms
	t.policy.Remove(now, d.id)
}

// revise applies the current terms of an active device. It returns true if that changed
// anything of the device.
func (t *timetable) revise(now time.Time, d *device) (changed bool) {
	w, was := t.terms(d), d.terms
	memory := was.memory
	if w.Paused && !was.paused {
		memory = t.policy.AppendMemory(nil, d.id)
	}
	t.totals.count(was, -1)
	setTermsLocked(d, w, memory)
	t.totals.count(d.terms, 1)
	switch {
	case d.terms.paused && !was.paused:
		t.policy.Remove(now, d.id)
	case !d.terms.paused && was.paused:
		t.schedule(now, d, memory)
	case !d.terms.paused && d.terms.Terms != was.Terms:
		t.policy.SetTerms(now, d.id, d.terms.Terms)
	default:
		return false
	}
	return true
}

// termTotals returns the terms of each device, and holds their totals over the active
// devices.
type termTotals struct {
	of     TermsOf                     // nil if no device has terms
	groups func(token string) []string // ids and names of a device's groups

	controlled, paused int
	timed              int     // devices with an interval of their own that are not paused
	demand             float64 // polls a minute that their intervals need
	logged             bool    // it was logged that the budget cannot hold them
}

// count adds a device's terms to the totals, or subtracts them if n is -1.
func (w *termTotals) count(t *terms, n int) {
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
func (w *termTotals) impossible(rate float64) string {
	if w.demand <= rate || rate <= 0 {
		return ""
	}
	return fmt.Sprintf("the request budget cannot hold the intervals set by live control: they need %.0f polls a minute, it has room for %.0f", w.demand, rate)
}

// Short returns a sentence if the budget cannot hold the intervals set by live control, else "".
func (p *Pool) Short() string { return p.fleet.short() }

// short returns why the schedule cannot keep the intervals of live control, or "".
func (f *fleet) short() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.impossible()
}

// impossible returns the reason at the present rate, or "".
func (t *timetable) impossible() string { return t.totals.impossible(t.pace.rate) }

// reportIntervals logs once that the budget cannot hold the intervals of live
// control, and once that it can again.
func (f *fleet) reportIntervals(log *slog.Logger) {
	f.mu.Lock()
	reason := f.table.impossible()
	changed := (reason != "") != f.table.totals.logged
	f.table.totals.logged = reason != ""
	f.mu.Unlock()
	switch {
	case changed && reason != "":
		log.Warn("devices are polled less often than live control asks for", "reason", reason)
	case changed:
		log.Info("request budget suffices for the intervals of live control again")
	}
}

// controls returns the totals of the terms.
func (f *fleet) controls() termTotals {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.totals
}

// termsEvery is the time between two checks that the budget holds the intervals.
const termsEvery = 5 * time.Second

// every calls f at an interval until ctx is cancelled.
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
	// rememberPause is the time between two writes of few of the 256 partitions: 100,000
	// devices take 32 s, at some 250 kB a second.
	rememberPause = tick.Grid
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

// memoryKeeper stores and restores the schedule's memory.
type memoryKeeper struct {
	store Memory // nil if the memory is not stored
	fleet *fleet
	log   *slog.Logger
}

// memoryState is how far the fleet has restored the schedule's memory.
type memoryState struct {
	fleet   bool              // the memory of the whole fleet was restored, or there was none
	listed  bool              // the devices have been listed
	devices map[string][]byte // memories by token, kept until the devices are listed
}

// recall starts to read the memory while the state is read, for devices that were not
// polled yet. The returned function waits for it and restores it if use is true. After
// a failure the schedule learns the devices again.
func (m *memoryKeeper) recall(ctx context.Context) (finish func(use bool)) {
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

// forgetful reports whether there are devices whose memory could be restored.
func (f *fleet) forgetful() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.table.memory.fleet || !f.table.memory.listed {
		return true
	}
	for _, d := range f.devices {
		if d.active && d.first && !d.terms.paused {
			return true
		}
	}
	return false
}

// recall restores the memories of devices that were not polled yet. Those of devices
// that are not listed yet are kept until then. It returns the number of
// devices that were restored now.
func (f *fleet) recall(fleet []byte, devices map[string][]byte) (n int) {
	f.mu.Lock()
	if !f.table.memory.fleet {
		f.table.memory.fleet = true
		f.table.policy.RestoreFleet(fleet)
	}
	if !f.table.memory.listed {
		f.table.memory.devices = devices
	}
	list := slices.DeleteFunc(f.devices.allPolled(f.table.policy.Len()), func(d *device) bool { return !d.first || devices[d.token()] == nil })
	f.mu.Unlock()
	f.inChunks(list, func(now time.Time, part []*device) {
		for _, d := range part {
			if d.active && d.first && !d.terms.paused && f.table.policy.Restore(now, d.id, devices[d.token()]) {
				n++
			}
		}
	})
	return n
}

// remember returns the memory of the fleet, and of its devices by token.
func (f *fleet) remember() (fleet []byte, devices map[string][]byte) {
	f.mu.Lock()
	fleet = f.table.policy.AppendFleetMemory(nil)
	list := f.devices.allPolled(f.table.policy.Len())
	f.mu.Unlock()
	devices = make(map[string][]byte, len(list))
	for part := range slices.Chunk(list, chunk) {
		f.mu.Lock()
		for _, d := range part {
			memory := d.terms.memory // of a device that is paused
			if memory == nil && d.active {
				memory = f.table.policy.AppendMemory(nil, d.id)
			}
			if len(memory) > 0 {
				devices[d.token()] = memory
			}
		}
		f.mu.Unlock()
	}
	return fleet, devices
}

// keep writes the schedule's memory once a minute until ctx is cancelled.
func (m *memoryKeeper) keep(ctx context.Context) {
	if m.store == nil {
		return
	}
	every(ctx, rememberEvery, func() { m.save(ctx, rememberPause) })
}

// last writes the schedule's memory at a stop.
func (m *memoryKeeper) last(grace time.Duration) {
	if m.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(lastPatience, grace/2))
	defer cancel()
	m.save(ctx, 0)
}

func (m *memoryKeeper) save(ctx context.Context, pause time.Duration) {
	now := time.Now()
	fleet, devices := m.fleet.remember()
	if len(devices) == 0 {
		return
	}
	if err := m.store.Save(ctx, now, fleet, devices, pause); err != nil && ctx.Err() == nil {
		m.log.Debug("could not store the schedule's memory", "err", err)
	}
}
