// Package echo recognizes the locations that the bridge posted itself when they
// come back through the API.
package echo

import (
	"slices"
	"sync"
	"time"

	"plaspy-bridge/bridge/inbound/message"
)

// Bounds of a [Tracker].
const (
	ttl       = 24 * time.Hour
	perDevice = 64
	inAll     = 1 << 16
)

// Tracker remembers the locations that were posted, so that they are recognized
// when they come back through the API. It remembers for a day, at
// most 64 locations of a device and 65,536 in all, the newest ones. It is safe
// for concurrent use. A nil *Tracker takes notes and remembers nothing.
//
// Run reads the posts of other replicas, and those of this one before a restart,
// from the stream of results. A location that comes back before its
// result is stored, by another replica's poll or across a crash, is not
// recognized.
type Tracker struct {
	mu      sync.Mutex
	devices map[string][]posting // by token, oldest first
	order   []string             // tokens, one entry for each posting, oldest first
}

// posting is a location that the API took, or may have taken.
type posting struct {
	message.Fix
	added time.Time
	taken bool // the API took it
}

// New makes an empty tracker.
func New() *Tracker { return &Tracker{devices: make(map[string][]posting)} }

// Posted reports whether a fix of a device, by its token, is one that the bridge
// posted. A fix that is being posted counts.
func (t *Tracker) Posted(deviceToken string, fixTime time.Time, lat, lon float64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.devices[deviceToken]
	i := indexOf(list, message.Fix{At: fixTime, Lat: lat, Lon: lon})
	return i >= 0 && time.Since(list[i].added) < ttl
}

// Sending notes that a fix is about to be posted. The API may show it before it
// answers.
func (t *Tracker) Sending(deviceToken string, f message.Fix) { t.add(deviceToken, f, false) }

// Taken notes that the API took a fix.
func (t *Tracker) Taken(deviceToken string, f message.Fix) { t.add(deviceToken, f, true) }

// Refused forgets a fix that the API refused, unless it took the same fix before.
func (t *Tracker) Refused(deviceToken string, f message.Fix) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.devices[deviceToken]
	i := indexOf(list, f)
	if i < 0 || list[i].taken {
		return
	}
	t.devices[deviceToken] = slices.Delete(slices.Clone(list), i, i+1)
	if len(list) == 1 {
		delete(t.devices, deviceToken)
	}
	for k, device := range slices.Backward(t.order) {
		if device == deviceToken {
			t.order = slices.Delete(t.order, k, k+1)
			return
		}
	}
}

func (t *Tracker) add(token string, f message.Fix, taken bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.devices[token]
	if i := indexOf(list, f); i >= 0 {
		list[i].added, list[i].taken = time.Now(), list[i].taken || taken
		return
	}
	p := posting{f, time.Now(), taken}
	if len(list) == perDevice {
		// Its place in order stays: the entries of a device are alike, and each
		// stands for the oldest.
		copy(list, list[1:])
		list[len(list)-1] = p
		return
	}
	t.devices[token] = append(list, p)
	t.order = append(t.order, token)
	if len(t.order) > inAll {
		t.forgetLocked()
	}
}

// forgetLocked drops the oldest posting of the device that posted longest ago.
func (t *Tracker) forgetLocked() {
	token := t.order[0]
	t.order = t.order[1:]
	if list := t.devices[token]; len(list) > 1 {
		t.devices[token] = append(list[:0:0], list[1:]...)
	} else {
		delete(t.devices, token)
	}
}

// indexOf finds the newest posting of a fix, -1 if there is none.
func indexOf(list []posting, f message.Fix) int {
	for i, p := range slices.Backward(list) {
		if p.Same(f) {
			return i
		}
	}
	return -1
}
