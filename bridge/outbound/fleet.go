package outbound

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/gap"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/publisher"
)

// device is one device of the account, or of the stream. The first block is
// guarded by the fleet's mutex. The rest belongs to the turn while the device is
// busy, and else to the holder of the mutex.
type device struct {
	id, name string
	busy     bool // polled, or its events are not stored yet
	listed   bool // in the API's list, and chosen
	active   bool // listed and assigned to this replica: in the schedule
	marked   bool // in the fleet's list of devices that have changed
	first    bool // active, and not polled since
	// reread: its state has to be read from the stream before it is polled,
	// because another replica may have published.
	reread bool
	// revoked: another replica may have polled it since its turn began, so the turn
	// publishes nothing more.
	revoked   atomic.Bool
	failures  int32 // polls in a row that failed
	decisions decision.Log

	track     track.Track
	complaint unique.Handle[string] // the trouble that was logged last; zero means none
	day       *quota.Day            // nil if there is no daily quota
	patience  gap.Patience
	terms     *terms // guarded by the fleet's mutex; not nil, and not changed in place
}

// token is the device's id as the key of maps and in subjects. Most ids are their own token.
func (d *device) token() string { return publisher.Encode(d.id) }

// fleet is the set of devices, with the schedule of those that are polled. It is
// safe for concurrent use. Nothing that blocks is done under its mutex.
type fleet struct {
	owner      Ownership
	allocator  allocator
	suspectMax int
	setDevices func(n int)
	size       size

	mu       sync.Mutex
	table    timetable
	devices  roster
	busy     countdown // devices that are busy
	given    countdown // devices that are busy and no longer active
	ended    uint64    // turns that ended
	suspects int       // devices with failures that are being polled
	changes  changes
	waiting  callers // callers of Poll, by the id of their device
}

// countdown counts things that end.
type countdown struct {
	n    int
	zero chan struct{} // if not nil, closed when n is 0
}

// add changes the count.
func (c *countdown) add(delta int) {
	if c.n += delta; c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// ended returns a channel that is closed when the count is 0.
func (c *countdown) ended() <-chan struct{} {
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.add(0)
	return zero
}

// size counts the work of the schedule, for readers that must not wait for the mutex.
type size struct {
	filled atomic.Bool   // a device list was followed
	polled atomic.Int64  // devices in the schedule
	timed  atomic.Int64  // those of them with an interval of their own
	demand atomic.Uint64 // polls a minute that these intervals need, the bits of a float64
}

// measure brings the size up to date.
func (s *size) measure(polled int, w *termTotals) {
	s.polled.Store(int64(polled))
	s.timed.Store(int64(w.timed))
	s.demand.Store(math.Float64bits(w.demand))
}

// timetable is the schedule of the active devices, with the rate, the terms and the memory
// that it was given. The fleet's mutex guards it.
type timetable struct {
	policy *schedule.Schedule
	pace   pace
	totals termTotals
	memory memoryState
}

// pace is the rate that the schedule was given.
type pace struct {
	rate  float64 // polls a minute, 0 without a limit; negative means none yet
	given time.Time
}

// changes are the devices for the next call of Changed.
type changes struct {
	watched bool // Changed is called
	list    []*device
}

func newFleet(policy *schedule.Schedule, owner Ownership, groups func(token string) []string, o Options) *fleet {
	f := &fleet{
		owner: owner, allocator: allocator{history: o.AlertHistory, limited: o.Quota.Limited()}, setDevices: o.SetDevices,
		// Devices with polls that hang must not occupy every worker.
		suspectMax: max(o.Workers/4, 1),
		devices:    make(roster), table: timetable{policy: policy, pace: pace{rate: -1}, totals: termTotals{groups: groups}},
	}
	if f.setDevices == nil {
		f.setDevices = func(int) {}
	}
	return f
}

// mark notes that a device has changed.
func (c *changes) mark(d *device) {
	if c.watched && !d.marked {
		d.marked = true
		c.list = append(c.list, d)
	}
}

// addLocked adds a device that is not listed yet.
func (f *fleet) addLocked(id, token string) *device {
	d := f.allocator.device(id)
	f.devices[token] = d
	return d
}

// roster holds the devices by token, those no longer listed too.
type roster map[string]*device

// polled returns the device with that id if it is in the schedule, or nil.
func (r roster) polled(id string) *device {
	if d := r[publisher.Encode(id)]; d != nil && d.active {
		return d
	}
	return nil
}

// allPolled returns the devices in the schedule, of which there are n.
func (r roster) allPolled(n int) []*device {
	list := make([]*device, 0, n)
	for _, d := range r {
		if d.active {
			list = append(list, d)
		}
	}
	return list
}

// allocator makes devices.
type allocator struct {
	history bool     // the tracks remember the alerts that were published
	limited bool     // the devices have a daily quota
	block   []device // allocated, and not used yet
}

// deviceBlock is the number of devices that are allocated together, because the runtime
// would round the size of each one up. They fill 64 KiB.
const deviceBlock = 130

func (a *allocator) device(id string) *device {
	if len(a.block) == 0 {
		a.block = make([]device, deviceBlock)
	}
	d := &a.block[0]
	a.block = a.block[1:]
	d.id, d.track, d.terms = id, track.New(a.history), &noTerms
	if a.limited {
		d.day = new(quota.Day)
	}
	return d
}

// activateLocked puts a device into the schedule, or takes it out. It returns
// true if the device was put in.
func (f *fleet) activateLocked(now time.Time, d *device) bool {
	active := d.listed && f.owner.Owns(d.token())
	if active == d.active {
		return false
	}
	d.active, d.first = active, active
	if d.busy && active {
		f.given.add(-1)
	} else if d.busy {
		f.given.add(1)
	}
	f.changes.mark(d)
	if active {
		f.table.enter(now, d)
	} else {
		f.table.leave(now, d)
	}
	f.size.measure(f.table.policy.Len(), &f.table.totals)
	return active
}

// reassign asks again which devices are assigned to this replica. It returns the
// number of those that were put into the schedule, and a channel that is closed when
// no turn of a device that is not in the schedule is in flight.
func (f *fleet) reassign(now time.Time) (gained int, settled <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.devices {
		if f.activateLocked(now, d) {
			gained++
		}
	}
	f.setDevices(f.table.policy.Len())
	return gained, f.given.ended()
}

// revokeGiven forbids the turns in flight of devices that are not in the schedule to
// publish.
func (f *fleet) revokeGiven() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.given.n == 0 {
		return
	}
	for _, d := range f.devices {
		if d.busy && !d.active {
			d.revoked.Store(true)
		}
	}
}

// follow takes over the devices of the list. Their order is that of their first
// polls.
func (f *fleet) follow(now time.Time, devices []inventory.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.devices {
		d.listed = false
	}
	f.size.filled.Store(true)
	for i := range devices {
		l := &devices[i]
		d := f.devices[l.Token]
		if d == nil {
			d = f.addLocked(l.ID, l.Token)
		}
		if d.name != l.Name {
			d.name = l.Name
			f.changes.mark(d)
		}
		d.listed = l.Chosen
	}
	for i := range devices {
		f.activateLocked(now, f.devices[devices[i].Token])
	}
	for _, d := range f.devices {
		if d.active && !d.listed {
			f.activateLocked(now, d)
		}
	}
	f.table.memory.listed, f.table.memory.devices = true, nil
	f.setDevices(f.table.policy.Len())
}

// job is one poll to make.
type job struct {
	d       *device
	name    string            // of the device
	suspect bool              // its last poll failed
	reread  bool              // its state has to be read first
	callers []chan pollResult // of Poll, which wait for the result
}

// suspectWait is how long a device waits if it cannot be polled now: too many
// failing devices are being polled, its events are not stored yet, or another
// replica may own it.
const suspectWait = 250 * time.Millisecond

// next takes the device to poll now from the schedule. rate is the number of polls
// a minute that the budget permits.
func (f *fleet) next(now time.Time, rate float64) (j job, wake time.Time, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.setRate(now, rate)
	for {
		id, ok, wake := f.table.policy.Next(now)
		if !ok {
			return job{}, wake, false
		}
		d := f.devices.polled(id)
		switch {
		case d == nil: // removed meanwhile
			f.table.policy.PutBack(now, id, time.Time{})
		case d.busy, // removed and added again while its events are not stored
			d.failures > 0 && f.suspects >= f.suspectMax:
			f.table.policy.PutBack(now, id, now.Add(suspectWait))
		default:
			j := job{d: d, name: d.name, suspect: d.failures > 0, reread: d.reread, callers: f.waiting.take(id)}
			d.busy, d.reread, d.first = true, false, false
			d.revoked.Store(false)
			f.busy.add(1)
			if j.suspect {
				f.suspects++
			}
			return j, time.Time{}, true
		}
	}
}

// setRate gives the schedule a rate that differs from its own. Once a
// second is often enough, and a few per cent are not worth a new plan.
func (t *timetable) setRate(now time.Time, rate float64) {
	const enough = 0.03
	if now.Sub(t.pace.given) < time.Second {
		return
	}
	t.pace.given = now
	if math.IsInf(rate, 1) {
		rate = 0 // no limit, for the schedule
	} else {
		rate = max(rate, 1e-3)
	}
	if t.pace.rate >= 0 && math.Abs(rate-t.pace.rate) <= enough*t.pace.rate {
		return
	}
	t.pace.rate = rate
	t.policy.SetRate(now, rate)
}

// ending is how a turn gives its device back to the schedule.
type ending struct {
	learnt    *schedule.Observation // nil if the poll taught nothing
	notBefore time.Time             // of the next poll, if learnt is nil
	reread    bool                  // the state has to be read first
	soon      bool                  // before other devices
}

// release ends a device's turn.
func (f *fleet) release(d *device, now time.Time, result decision.Decision, e ending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d.busy = false
	if !d.active {
		f.given.add(-1)
	}
	d.reread = d.reread || e.reread
	d.decisions.Add(result, now)
	f.ended++
	if e.soon {
		f.table.policy.Soon(now, d.id)
	}
	if e.learnt != nil {
		f.table.policy.Done(now, d.id, *e.learnt)
	} else {
		f.table.policy.PutBack(now, d.id, e.notBefore)
	}
	if len(f.waiting[d.id]) > 0 { // they came during the turn
		f.table.policy.Now(now, d.id)
	}
	f.changes.mark(d)
	f.busy.add(-1)
}

// suspectEnded notes that the poll of a suspect device has ended.
func (f *fleet) suspectEnded() {
	f.mu.Lock()
	f.suspects--
	f.mu.Unlock()
}

// fail counts a failed poll.
func (f *fleet) fail(d *device) {
	f.mu.Lock()
	d.failures++
	f.mu.Unlock()
}

// clearFailures resets the count of failed polls.
func (f *fleet) clearFailures(d *device) {
	f.mu.Lock()
	d.failures = 0
	f.mu.Unlock()
}

// idleness returns a channel that is closed when no device is busy.
func (f *fleet) idleness() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy.ended()
}

// work returns the number of busy devices and of turns that have ended.
func (f *fleet) work() (busy int, ended uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busy.n, f.ended
}

func (f *fleet) stats() schedule.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.policy.Stats(time.Now())
}
