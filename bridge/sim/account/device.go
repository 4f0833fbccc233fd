package account

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/sim/fleet"
)

// Device is one device of the account. It has at most 512 bytes: the garbage
// collector scans larger objects more slowly.
type Device struct {
	id           string
	opts         *Options
	polls, posts atomic.Int32 // under way

	mu       sync.Mutex
	info     DeviceInfo
	fleet    *fleet.Device
	pin      pin
	archive  archive
	raised   []raised // posted alerts, in order of arrival
	display  display
	usage    usage
	replies  replies
	accepted int64 // posts

	shown []Shown
	taken []Post
}

// Begin notes that a request about the device begins, one that stores or one
// that polls. It returns how many of this sort are under way, the new one
// included. End must follow.
func (d *Device) Begin(stores bool) (underWay int) { return int(d.underWay(stores).Add(1)) }

// End notes that a request has ended.
func (d *Device) End(stores bool) { d.underWay(stores).Add(-1) }

func (d *Device) underWay(stores bool) *atomic.Int32 {
	if stores {
		return &d.posts
	}
	return &d.polls
}

// WithinQuota reports whether the device may have results today. The limit is
// one of results handed out: an answer begun below it is given whole.
func (d *Device) WithinQuota(now time.Time) bool {
	limit := d.opts.DailyResults
	if limit <= 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usage.on(now) < limit
}

// usage counts the results of a UTC day.
type usage struct {
	day     int64 // since the epoch
	results int
}

func (u *usage) on(now time.Time) int {
	if u.day != now.Unix()/86400 {
		return 0
	}
	return u.results
}

func (u *usage) add(now time.Time, results int) {
	*u = usage{now.Unix() / 86400, u.on(now) + results}
}

// pin is a location that a test has set.
type pin struct {
	raw   json.RawMessage // nil shows nothing
	at    time.Time       // its own time; zero if it has none, so anything is newer
	since time.Time       // when the pin began; zero means that none is set
}

func (p *pin) on() bool { return !p.since.IsZero() }

// set pins a location; raw must not change any more.
func (d *Device) set(raw json.RawMessage, now time.Time) {
	at, err := checkLocation(raw)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pin.on() {
		now = d.pin.since
	}
	d.pin = pin{raw: raw, at: at, since: now}
	d.display.source, d.archive.newest = source{}, stored{} // older posts show no more
	if err == nil {
		d.archive.add(at, raw, d.opts.History)
	}
}

func (d *Device) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pin = pin{}
}

// archive holds posted and pinned locations.
type archive struct {
	list   []stored // by their own time, oldest first
	newest stored   // of the posted ones, since the last pin
	n      uint64   // how many were stored
}

// stored is a location with its own time.
type stored struct {
	at  time.Time
	raw json.RawMessage
	n   uint64
}

// add stores a location, and forgets the oldest beyond a limit.
func (a *archive) add(at time.Time, raw json.RawMessage, keep int) stored {
	i, _ := slices.BinarySearchFunc(a.list, at, func(e stored, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1 // behind those of the same time
	})
	a.n++
	st := stored{at, raw, a.n}
	a.list = slices.Insert(a.list, i, st)
	if len(a.list) > keep {
		a.list = slices.Delete(a.list, 0, 1)
	}
	return st
}

// post stores a posted location.
func (a *archive) post(at time.Time, raw json.RawMessage, keep int) {
	if st := a.add(at, raw, keep); a.newest.raw == nil || !at.Before(a.newest.at) {
		a.newest = st
	}
}

// replies holds the answers to posts by endpoint and Idempotency-Key.
type replies struct {
	seen map[string][]byte
	keys []string // of seen, the oldest first
}

// add keeps the answer to a key, and forgets the oldest beyond a limit.
func (r *replies) add(key string, body []byte, keep int) {
	if r.seen == nil {
		r.seen = map[string][]byte{}
	}
	r.seen[key] = bytes.Clone(body)
	if r.keys = append(r.keys, key); len(r.keys) > keep {
		delete(r.seen, r.keys[0])
		r.keys = r.keys[1:]
	}
}

// appendBounded appends and drops the oldest beyond a limit, in constant time
// on average.
func appendBounded[T any](list []T, v T, limit int) []T {
	if len(list) >= limit {
		list = list[len(list)-limit+1:]
	}
	return append(list, v)
}
