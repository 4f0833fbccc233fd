package outbound

import (
	"time"

	"plaspy-bridge/bridge/outbound/inventory"
)

// Listed describes the last reading of the device list.
func (p *Pool) Listed() inventory.State { return p.inventory.State() }

// Owned returns how many devices this replica polls.
func (p *Pool) Owned() int { return int(p.polled.Load()) }

// Ownership implements [inventory.Fleet].
func (p *Pool) Ownership() (owns func(token string) bool, ok bool) {
	if p.stale() {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owns == nil {
		return func(string) bool { return true }, true
	}
	return p.owns, true
}

// Follow implements [inventory.Fleet]. The order of the devices is the order of
// their first polls.
func (p *Pool) Follow(devices []inventory.Device) {
	now := time.Now()
	p.mu.Lock()
	defer nudge(p.wake)
	defer p.mu.Unlock()
	for _, d := range p.devices {
		d.listed = false
	}
	for i := range devices {
		l := &devices[i]
		d := p.devices[l.Token]
		if d == nil {
			d = p.newDevice(l.ID, l.Token)
		}
		if d.name != l.Name {
			d.name = l.Name
			p.touch(d)
		}
		d.listed = l.Chosen
	}
	for i := range devices {
		p.activate(now, p.devices[devices[i].Token])
	}
	for _, d := range p.devices {
		if d.active && !d.listed {
			p.activate(now, d)
		}
	}
	p.circuit.SetDevices(len(p.byID))
}
