package account

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

// Shown is one answer of lastLocation with status 200, as a client received it.
type Shown struct {
	Seq uint64    `json:"seq"` // of the request, over all requests
	At  time.Time `json:"at"`
	// Token is the number of the token that asked, in order of issue from
	// 1. It tells clients apart.
	Token int64 `json:"token"`
	// Fix grows whenever the location changes in more than inactiveSeconds,
	// also when an earlier location comes back. 0 means that the device had no location to show.
	Fix uint64 `json:"fix"`
	// Raw is lastLocation byte for byte, empty if it was absent. It is a
	// string so that it also leaves the control API byte for byte, as long
	// as it is UTF-8: encoding/json would compact a json.RawMessage.
	Raw string `json:"raw,omitempty"`
	// Fault is the kind of fault that distorted the answer, if one did.
	Fault fault.Kind `json:"fault,omitempty"`
}

// Shown returns the answers of lastLocation about a device, in order, as far as
// Options.Record keeps them.
func (a *Account) Shown(id string) []Shown {
	d := a.Device(id)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.shown)
}

// Changes returns the answers of Shown that differ from the one before in more
// than inactiveSeconds, without those that had no location or a fault.
func (a *Account) Changes(id string) []Shown {
	var fix uint64
	return slices.DeleteFunc(a.Shown(id), func(sh Shown) bool {
		if sh.Raw == "" || sh.Fault != "" || sh.Fix == fix {
			return true
		}
		fix = sh.Fix
		return false
	})
}

// Request is the request that a device answers.
type Request struct {
	Seq   uint64
	Token int64       // its number
	Fault *fault.Rule // nil if none applies
}

// AppendLocation appends the location that lastLocation shows now, distorted as
// the request's fault wants it, and records the answer. It appends nothing if
// there is none.
func (d *Device) AppendLocation(dst []byte, r Request) []byte {
	start := len(dst)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	sh := Shown{Seq: r.Seq, At: now, Token: r.Token}
	dst, sh.Fix = d.appendLocked(dst, now)
	if r.Fault != nil {
		dst = r.Fault.Location(dst, start)
		sh.Fault = r.Fault.Kind
	}
	d.usage.add(now, 1)
	if d.opts.Record > 0 && (r.Fault == nil || r.Fault.Kind.Effect() == fault.Distorts) {
		sh.Raw = string(dst[start:])
		d.shown = appendBounded(d.shown, sh, d.opts.Record)
	}
	return dst
}

// display is the location that lastLocation showed last.
type display struct {
	source source
	fix    uint64 // see Shown
	cache  []byte // source as JSON
	hole   int    // position of inactiveSeconds' value in cache; -1 means none
}

// source identifies the fix that lastLocation shows.
type source struct {
	kind byte // 0 nothing, 'f' fleet, 'p' pinned, 's' stored
	n    uint64
}

// appendLocked appends the location that shows at a time, if there is one, and
// returns the number of its fix.
func (d *Device) appendLocked(dst []byte, now time.Time) ([]byte, uint64) {
	src, base, moved := d.ownLocked(now)
	if newest := &d.archive.newest; newest.raw != nil && (src.kind == 0 || newest.at.After(base)) {
		src = source{'s', newest.n}
	}
	v := &d.display
	if src.kind == 0 {
		v.source = src
		return dst, 0
	}
	if src != v.source {
		v.source = src
		switch src.kind {
		case 'f':
			v.render(moved)
		case 's':
			v.set(d.archive.newest.raw)
		default:
			v.set(d.pin.raw)
		}
	}
	if v.hole < 0 {
		return append(dst, v.cache...), v.fix
	}
	dst = append(dst, v.cache[:v.hole]...)
	dst = strconv.AppendInt(dst, moved.InactiveSeconds(now), 10)
	return append(dst, v.cache[v.hole:]...), v.fix
}

// ownLocked returns the device's location without posted ones, with its own
// time.
func (d *Device) ownLocked(now time.Time) (src source, at time.Time, f *fleet.Fix) {
	if d.pin.on() {
		if d.pin.raw == nil {
			return source{}, time.Time{}, nil
		}
		return source{kind: 'p'}, d.pin.at, nil
	}
	f, ok := d.fleet.Poll(now)
	if !ok {
		return source{}, time.Time{}, nil
	}
	return source{'f', d.fleet.Count()}, f.Time(), f
}

// render fills the cache from a fleet's fix.
func (v *display) render(f *fleet.Fix) {
	v.fix++
	v.cache, v.hole = f.AppendJSON(v.cache[:0])
}

// set fills the cache from a location that was pinned or posted. The same bytes
// again are no new fix.
func (v *display) set(raw json.RawMessage) {
	if v.fix == 0 || v.hole >= 0 || !bytes.Equal(v.cache, raw) {
		v.fix++
		v.cache, v.hole = append(v.cache[:0], raw...), -1
	}
}
