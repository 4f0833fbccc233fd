package account

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/sim/fleet"
)

// Options are the settings of an account.
type Options struct {
	Seed    uint64        // the same seed and start give the same fleet
	Profile fleet.Profile // how the devices report
	Start   time.Time     // when the fleet's life begins
	History int           // fixes, posts and answers by key that a device keeps

	DailyResults int  // results per device and UTC day; 0 means no limit
	Idempotent   bool // stores posts with the same key once
	Record       int  // answers and posts recorded per device, the newest ones; 0 means none
}

// Account is a set of devices in the order of their list. Its zero value is not
// usable.
type Account struct {
	opts Options

	mu      sync.RWMutex
	devices map[string]*Device
	order   []*Device // as the device list has them
	groups  []Group   // nil means one for each kind of vehicle
	profile fleet.Profile

	// list is the device list as JSON; nil after a change.
	list atomic.Pointer[[]byte]
}

// New returns an account with these devices.
func New(o Options, ids []string) *Account {
	a := &Account{opts: o, profile: o.Profile, devices: make(map[string]*Device, len(ids))}
	for _, id := range ids {
		a.add(id)
	}
	return a
}

// Device returns the device with an id, nil if there is none.
func (a *Account) Device(id string) *Device {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.devices[id]
}

// add returns the device with an id. It makes one with an invented name if there
// is none.
func (a *Account) add(id string) *Device {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.devices[id]; d != nil {
		return d
	}
	n := len(a.order) + 1
	kind := kinds[n%len(kinds)]
	d := &Device{
		id:      id,
		opts:    &a.opts,
		display: display{hole: -1},
		info: DeviceInfo{
			ID:          id,
			Name:        kind + " " + strconv.Itoa(n),
			Description: "Simulated " + kind,
			Min:         fmt.Sprintf("+57300%07d", n),
			Tags:        map[string]string{"kind": kind, "plate": plate(n)},
			Expires:     a.opts.Start.UTC().Truncate(time.Second).AddDate(1, 0, 0),
		},
		fleet: fleet.NewDevice(id, a.opts.Seed, a.opts.Start, a.profile, a.opts.History),
	}
	a.devices[id] = d
	a.order = append(a.order, d)
	a.list.Store(nil)
	return d
}

// AddDevice adds a device, which reports after the fleet's profile. It does
// nothing if there is a device with that id.
func (a *Account) AddDevice(id string) { a.add(id) }

// RemoveDevice removes a device with its history.
func (a *Account) RemoveDevice(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.devices[id]
	delete(a.devices, id)
	a.order = slices.DeleteFunc(a.order, func(o *Device) bool { return o == d })
	a.list.Store(nil)
}

// SetDevice changes a device's entry in the device list, and adds the device if
// there is none. The id that requests use stays. The function must not call the
// account.
func (a *Account) SetDevice(id string, change func(*DeviceInfo)) {
	d := a.add(id)
	a.mu.Lock() // not the device's lock alone: DevicesJSON may be under way
	defer a.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.info)
	a.list.Store(nil)
}

// SetProfile gives every device, and those added later, a new life after a
// profile, which begins now; posted and set data stays.
func (a *Account) SetProfile(p fleet.Profile) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.profile = p
	now := time.Now()
	for _, d := range a.order {
		d.mu.Lock()
		d.fleet = fleet.NewDevice(d.id, a.opts.Seed, now, p, a.opts.History)
		d.display.source = source{} // its fixes are numbered anew
		d.mu.Unlock()
	}
}

// SetGroups replaces the groups. By default there is one for each kind of
// vehicle.
func (a *Account) SetGroups(g []Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = slices.Clone(g)
	if a.groups == nil {
		a.groups = []Group{}
	}
}

// SetLocation makes a device show exactly this from now on, whatever its vehicle
// does. With nil it shows nothing, like a device that has never reported. A
// device that does not exist is added. A location posted later shows if it is
// newer.
func (a *Account) SetLocation(id string, raw json.RawMessage) {
	a.add(id).set(slices.Clone(raw), time.Now())
}

// ReleaseLocation ends the effect of SetLocation: the vehicle's own fixes show
// again.
func (a *Account) ReleaseLocation(id string) { a.add(id).release() }

// IDs returns the ids of all devices, in the order of the list.
func (a *Account) IDs() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	ids := make([]string, len(a.order))
	for i, d := range a.order {
		ids[i] = d.id
	}
	return ids
}

// Accepted returns how many posts each device has accepted, without devices that
// have none.
func (a *Account) Accepted() map[string]int64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := map[string]int64{}
	for _, d := range a.order {
		d.mu.Lock()
		if d.accepted > 0 {
			all[d.id] = d.accepted
		}
		d.mu.Unlock()
	}
	return all
}
