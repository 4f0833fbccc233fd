package sim

import (
	"encoding/json"
	"slices"
	"time"

	"plaspy-bridge/bridge/sim/fault"
)

// deviceList is GET /api/devices.
func (s *Server) deviceList(c *call) answer {
	list := s.listJSON()
	if c.fault != nil {
		list = c.fault.List(list)
	}
	a := s.success(1)
	a.body = append(a.body, `,"devices":`...)
	a.body = append(a.body, list...)
	a.body = append(a.body, '}')
	return a
}

// listJSON is the array of all devices, made again only after a change.
func (s *Server) listJSON() []byte {
	if b := s.list.Load(); b != nil {
		return *b
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := []byte{'['}
	for i, d := range s.order {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, d.entry()...)
	}
	b = append(b, ']')
	// A change that comes now waits for the lock before it clears the list.
	s.list.Store(&b)
	return b
}

// entry is the device as the list shows it.
func (d *device) entry() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.info.Raw) > 0 {
		return d.info.Raw
	}
	return mustJSON(d.info)
}

func (s *Server) deviceEntry(c *call) answer {
	a := s.success(1)
	a.body = append(a.body, `,"device":`...)
	a.body = append(a.body, c.device.entry()...)
	a.body = append(a.body, '}')
	return a
}

// groupList is GET /api/groups.
func (s *Server) groupList(c *call) answer {
	s.mu.RLock()
	list := slices.Clone(s.groups)
	if s.groups == nil {
		list = s.groupsByKind()
	}
	s.mu.RUnlock()
	if c.fault != nil && c.fault.Kind == fault.EmptyList {
		list = nil
	}
	if list == nil {
		list = []Group{}
	}
	a := s.success(1)
	a.body = append(a.body, `,"groups":`...)
	a.body = append(a.body, mustJSON(list)...)
	a.body = append(a.body, '}')
	return a
}

func (s *Server) groupsByKind() []Group {
	made := s.opts.Start.UTC().Truncate(time.Second)
	var list []Group
	for i, kind := range kinds {
		g := Group{
			ID: "group" + string(rune('1'+i)), Name: kind + " fleet", Description: "Every " + kind,
			Devices: []string{}, Creation: made, LastModified: made,
		}
		for _, d := range s.order {
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

// lastLocation is GET /api/devices/{id}/lastLocation, the request that there
// are thousands of.
func (s *Server) lastLocation(c *call) answer {
	d := c.device
	a := s.success(1)
	a.body = append(a.body, `,"lastLocation":`...)
	start := len(a.body)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var fix uint64
	a.body, fix = d.appendLast(a.body, now)
	sh := Shown{Seq: c.seq, At: now, Token: c.token, Fix: fix}
	if c.fault != nil {
		a.body = c.fault.Location(a.body, start)
		sh.Fault = c.fault.Kind
	}
	if len(a.body) == start { // nothing to show: the member is left out
		a.body = append(a.body[:start-len(`,"lastLocation":`)], '}')
	} else {
		if s.opts.Record > 0 {
			sh.Raw = string(a.body[start:])
		}
		a.body = append(a.body, '}')
	}
	d.use(now, 1)
	if c.fault == nil || c.fault.Kind.Effect() == fault.Distorts {
		d.record(s.opts.Record, sh)
	}
	return a
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("sim: " + err.Error()) // a time beyond year 9999 or broken Raw, set by the caller
	}
	return b
}

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte { return append(dst, mustJSON(s)...) }
