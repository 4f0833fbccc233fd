package account

import (
	"encoding/json"
	"fmt"
	"time"
)

// DeviceInfo is a device as the device list has it. Empty fields are left out.
type DeviceInfo struct {
	ID          string            `json:"id"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	Min         string            `json:"min,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Expires     time.Time         `json:"expires,omitzero"`
	// Raw replaces all of the above in the list, unless it is empty.
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

var kinds = [...]string{"Truck", "Van", "Bus", "Motorcycle"}

// plate is a number plate as cars have it in Colombia: three letters, three digits.
func plate(n int) string {
	letter := func(k int) byte { return byte('A' + k%26) }
	return string([]byte{letter(n), letter(n / 26), letter(n / 676)}) + fmt.Sprintf("%03d", n*37%1000)
}

// DevicesJSON returns the array of all devices. It is made again only after a
// change.
func (a *Account) DevicesJSON() []byte {
	if b := a.list.Load(); b != nil {
		return *b
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := []byte{'['}
	for i, d := range a.order {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, d.Entry()...)
	}
	b = append(b, ']')
	// A change that comes now waits for the lock, and then clears the list.
	a.list.Store(&b)
	return b
}

// Entry returns the device as the list has it, as JSON.
func (d *Device) Entry() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.info.Raw) > 0 {
		return d.info.Raw
	}
	return mustJSON(d.info)
}

// GroupsJSON returns the array of all groups.
func (a *Account) GroupsJSON() []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := a.groups
	if list == nil {
		list = a.groupsByKindLocked()
	}
	return mustJSON(list)
}

func (a *Account) groupsByKindLocked() []Group {
	made := a.opts.Start.UTC().Truncate(time.Second)
	var list []Group
	for i, kind := range kinds {
		g := Group{
			ID: "group" + string(rune('1'+i)), Name: kind + " fleet", Description: "Every " + kind,
			Devices: []string{}, Creation: made, LastModified: made,
		}
		for _, d := range a.order {
			d.mu.Lock()
			if d.info.Tags["kind"] == kind {
				g.Devices = append(g.Devices, d.id)
			}
			d.mu.Unlock()
		}
		list = append(list, g)
	}
	return list
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("simulated account: " + err.Error()) // a time beyond year 9999 or broken Raw, set by the caller
	}
	return b
}
