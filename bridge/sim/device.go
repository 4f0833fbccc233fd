package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

// DeviceInfo is a device as the device list has it. Empty fields are left out.
type DeviceInfo struct {
	ID          string            `json:"id"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	Min         string            `json:"min,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Expires     time.Time         `json:"expires,omitzero"`
	// Raw stands in the list instead of all the above, where it is not empty.
	Raw json.RawMessage `json:"-"`
}

// Group is a group of devices as the API lists it.
type Group struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Description  string    `json:"description,omitempty"`
	Devices      []string  `json:"devices"`
	Creation     time.Time `json:"creation,omitzero"`
	LastModified time.Time `json:"lastModified,omitzero"`
}

// Shown is one answer of lastLocation with status 200, as a client received it.
type Shown struct {
	Seq uint64    `json:"seq"` // of the request, over all requests
	At  time.Time `json:"at"`
	// Token is the number of the token that asked, in order of issue from
	// 1. It tells clients apart.
	Token int64 `json:"token"`
	// Fix changes whenever what is shown changes in more than
	// inactiveSeconds; it grows with each such change, also when an earlier
	// state comes back. 0: the device had no location to show.
	Fix uint64 `json:"fix"`
	// Raw is lastLocation byte for byte, "" where it was absent. It is a
	// string so that it also leaves the control API byte for byte, as long
	// as it is UTF-8: encoding/json would compact a json.RawMessage.
	Raw string `json:"raw,omitempty"`
	// Fault is the kind of fault that shaped the answer, if one did.
	Fault fault.Kind `json:"fault,omitempty"`
}

// device is one of the account's.
type device struct {
	id           string
	polls, posts int // under way; guarded by the ledger's lock

	mu       sync.Mutex
	info     DeviceInfo
	fleet    *fleet.Device
	pinned   bool            // shows the location of a test instead of the fleet's
	pin      json.RawMessage // nil: nothing
	pinnedAt time.Time       // when that was set
	stored   []stored        // posted and pinned locations by their own time, oldest first
	newest   stored          // of the posted ones, since the last pin
	posted   uint64          // how many locations were stored
	raised   []submitted     // posted alerts, in order of arrival
	keep     int             // of stored and raised

	source  source // what was shown last
	fix     uint64 // see Shown
	cache   []byte // source as JSON
	hole    int    // position of inactiveSeconds' value in cache; -1 means none
	shown   []Shown
	taken   []Post
	seen    map[string][]byte // answers by endpoint and Idempotency-Key
	keys    []string          // of seen, the oldest first
	day     int64             // since the epoch, UTC
	results int               // on that day

	accepted int64
}

// source identifies the fix that lastLocation shows.
type source struct {
	kind byte // 0 nothing, 'f' fleet, 'p' pinned, 's' stored
	n    uint64
}

// stored is a location with its own time.
type stored struct {
	at  time.Time
	raw json.RawMessage
	n   uint64
}

func deviceID(n int) string { return fmt.Sprintf("device%04d", n) }

var kinds = [...]string{"Truck", "Van", "Bus", "Motorcycle"}

// add makes a device with an invented name, unless there is one of that id.
func (s *Server) add(id string) *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.devices[id]; d != nil {
		return d
	}
	n := len(s.order) + 1
	kind := kinds[n%len(kinds)]
	d := &device{
		id:   id,
		keep: s.opts.History,
		hole: -1,
		info: DeviceInfo{
			ID:          id,
			Name:        kind + " " + strconv.Itoa(n),
			Description: "Simulated " + kind,
			Min:         fmt.Sprintf("+57300%07d", n),
			Tags:        map[string]string{"kind": kind, "plate": plate(n)},
			Expires:     s.opts.Start.UTC().Truncate(time.Second).AddDate(1, 0, 0),
		},
		fleet: fleet.NewDevice(id, s.opts.Seed, s.opts.Start, s.profile, s.opts.History),
	}
	s.devices[id] = d
	s.order = append(s.order, d)
	s.list.Store(nil)
	return d
}

// plate is a number plate as cars have it in Colombia: three letters, three digits.
func plate(n int) string {
	letter := func(k int) byte { return byte('A' + k%26) }
	return string([]byte{letter(n), letter(n / 26), letter(n / 676)}) + fmt.Sprintf("%03d", n*37%1000)
}

// AddDevice adds a device, which reports after the fleet's profile; nothing
// happens if there is one with that id.
func (s *Server) AddDevice(id string) { s.add(id) }

// RemoveDevice takes a device away with its history.
func (s *Server) RemoveDevice(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	delete(s.devices, id)
	s.order = slices.DeleteFunc(s.order, func(o *device) bool { return o == d })
	s.list.Store(nil)
}

// SetDevice changes a device's entry in the device list, and adds the device if
// there is none. The id that requests use stays. The function
// must not call the server.
func (s *Server) SetDevice(id string, change func(*DeviceInfo)) {
	d := s.add(id)
	s.mu.Lock() // not the device's lock alone: the list may be in the making
	defer s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.info)
	s.list.Store(nil)
}

// SetProfile gives every device, and those added later, a new life after a
// profile, which begins now; posted and set data stays.
func (s *Server) SetProfile(p fleet.Profile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profile = p
	now := time.Now()
	for _, d := range s.order {
		d.mu.Lock()
		d.fleet = fleet.NewDevice(d.id, s.opts.Seed, now, p, s.opts.History)
		d.source = source{} // counts anew, so that no number means the same fix
		d.mu.Unlock()
	}
}

// SetGroups replaces the groups; without it there is one for each kind of
// vehicle.
func (s *Server) SetGroups(g []Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = slices.Clone(g)
	if s.groups == nil {
		s.groups = []Group{}
	}
}

// SetLocation makes a device show exactly this from now on, whatever its
// vehicle does; nil: nothing, as a device that has never reported. A device
// that does not exist is added. A location posted later shows if it is newer.
func (s *Server) SetLocation(id string, raw json.RawMessage) {
	d := s.add(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.pinned {
		d.pinnedAt = time.Now()
	}
	d.pinned, d.pin = true, slices.Clone(raw)
	d.source, d.newest = source{}, stored{} // the script has the last word
	if at, err := checkLocation(raw); err == nil {
		d.store(at, d.pin)
	}
}

// ReleaseLocation ends what SetLocation began: the vehicle's own fixes show
// again.
func (s *Server) ReleaseLocation(id string) {
	d := s.add(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pinned, d.pin = false, nil
}

// IDs are the ids of all devices, in the order of the list.
func (s *Server) IDs() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make([]string, len(s.order))
	for i, d := range s.order {
		ids[i] = d.id
	}
	return ids
}

// Shown is what lastLocation answered about a device, in order, as far as
// Options.Record keeps it.
func (s *Server) Shown(id string) []Shown {
	d := s.find(id)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.shown)
}

// Changes are the answers of Shown that differ from the one before in more
// than inactiveSeconds, without those that showed no location or a fault's.
func (s *Server) Changes(id string) []Shown {
	var fix uint64
	return slices.DeleteFunc(s.Shown(id), func(a Shown) bool {
		if a.Raw == "" || a.Fault != "" || a.Fix == fix {
			return true
		}
		fix = a.Fix
		return false
	})
}

func (s *Server) find(id string) *device {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.devices[id]
}

// store keeps a location for range queries.
func (d *device) store(at time.Time, raw json.RawMessage) stored {
	i, _ := slices.BinarySearchFunc(d.stored, at, func(e stored, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1 // behind those of the same time
	})
	d.posted++
	st := stored{at, raw, d.posted}
	d.stored = slices.Insert(d.stored, i, st)
	if len(d.stored) > d.keep {
		d.stored = slices.Delete(d.stored, 0, 1)
	}
	return st
}

// appendBounded appends and drops the oldest beyond a limit, in constant time
// on average.
func appendBounded[T any](list []T, v T, limit int) []T {
	if len(list) >= limit {
		list = list[len(list)-limit+1:]
	}
	return append(list, v)
}
