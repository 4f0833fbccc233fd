package sim

import (
	"bytes"
	"strconv"
	"time"

	"plaspy-bridge/bridge/sim/fleet"
)

// quota reports whether a device may have results today. The limit is one of
// results handed out: an answer begun below it is given whole.
func (d *device) quota(now time.Time, limit int) bool {
	if limit <= 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.day != now.Unix()/86400 || d.results < limit
}

// use notes results handed out. The caller holds the lock.
func (d *device) use(now time.Time, results int) {
	if today := now.Unix() / 86400; d.day != today {
		d.day, d.results = today, 0
	}
	d.results += results
}

// appendLast appends the location that lastLocation shows at a time, if there is
// one, and returns the number of its fix.
func (d *device) appendLast(dst []byte, now time.Time) ([]byte, uint64) {
	src, base, moved := d.own(now)
	if d.newest.raw != nil && (src.kind == 0 || d.newest.at.After(base)) {
		src = source{'s', d.newest.n}
	}
	if src.kind == 0 {
		d.source = src
		return dst, 0
	}
	if src != d.source {
		d.source = src
		d.render(moved)
	}
	if d.hole < 0 {
		return append(dst, d.cache...), d.fix
	}
	dst = append(dst, d.cache[:d.hole]...)
	dst = strconv.AppendInt(dst, moved.InactiveSeconds(now), 10)
	return append(dst, d.cache[d.hole:]...), d.fix
}

// own returns the device's location without posted ones, with its own time.
func (d *device) own(now time.Time) (src source, at time.Time, f *fleet.Fix) {
	if d.pinned {
		if d.pin == nil {
			return source{}, time.Time{}, nil
		}
		at, _ = checkLocation(d.pin) // zero if it has no usable time, so anything is newer
		return source{kind: 'p'}, at, nil
	}
	f, ok := d.fleet.Poll(now)
	if !ok {
		return source{}, time.Time{}, nil
	}
	return source{'f', d.fleet.Count()}, f.Time(), f
}

// render fills the cache from the source, a fleet's fix if it is one. The
// same bytes set or posted again are no new fix.
func (d *device) render(f *fleet.Fix) {
	raw := d.pin
	switch d.source.kind {
	case 'f':
		d.fix++
		d.cache, d.hole = f.AppendJSON(d.cache[:0])
		return
	case 's':
		raw = d.newest.raw
	}
	if d.fix == 0 || d.hole >= 0 || !bytes.Equal(d.cache, raw) {
		d.fix++
		d.cache, d.hole = append(d.cache[:0], raw...), -1
	}
}

// record remembers an answer.
func (d *device) record(limit int, sh Shown) {
	if limit <= 0 {
		return
	}
	d.shown = appendBounded(d.shown, sh, limit)
}

// remember keeps the answer to a key, and forgets the oldest.
func (d *device) remember(key string, body []byte) {
	if d.seen == nil {
		d.seen = map[string][]byte{}
	}
	d.seen[key] = bytes.Clone(body)
	if d.keys = append(d.keys, key); len(d.keys) > d.keep {
		delete(d.seen, d.keys[0])
		d.keys = d.keys[1:]
	}
}
