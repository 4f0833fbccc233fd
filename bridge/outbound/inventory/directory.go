package inventory

import (
	"cmp"
	"encoding/json"
	"slices"

	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// directory holds the account's list beside the device events in the stream. It
// is pure: its caller reads the list and publishes the events that are due.
type directory struct {
	sel     Selection
	records map[string]*record // by token
	list    listing
}

// listing holds the counts of the last list.
type listing struct {
	listed, chosen int
	// Devices that a doubtful list lacks, and those that doubtful groups lack.
	missing, left int
}

// record is one device.
type record struct {
	id, name string

	// Of the list.
	hash   uint64          // of its entry
	raw    json.RawMessage // nil once the stream holds it
	listed bool            // in the account
	gone   bool            // a list that was believed lacked it
	member bool            // in a chosen group; true if no group is chosen
	chosen bool            // to be polled
	// A doubtful list lacked it, or doubtful groups did: the next one decides.
	missing, left bool

	// Of the stream.
	met     bool // the stream holds something of the device
	busy    bool // an event is on its way
	swept   bool // its last position was deleted after it was removed
	event   Event
	refused uint64 // hash of an entry that the stream can never take
}

// token is the device's id as the key of maps and in subjects. Most ids are their own token.
func (r *record) token() string { return publisher.Encode(r.id) }

// Event is the part that is kept of the newest device event in the stream. The
// zero Event means that the stream holds none.
type Event struct {
	seq    uint64
	hash   uint64
	change change
}

// change is the change of a device event. It is a byte, because each device has one.
type change uint8

const (
	noChange change = iota
	added
	changed
	removed
	unknownChange
)

var changeNames = [...]string{added: publisher.Added, changed: publisher.Changed, removed: publisher.Removed, unknownChange: "unknown"}

// String returns the change as an event names it.
func (c change) String() string { return changeNames[c] }

// known reports whether the stream has the device in the account.
func (e Event) known() bool { return e.change == added || e.change == changed }

// due is a device event to publish.
type due struct {
	r      *record
	change change
	raw    json.RawMessage // nil for a removal: as the stream has it
	hash   uint64
	seq    uint64
	back   bool // the stream had the device removed
}

func newDirectory(sel Selection) *directory {
	return &directory{sel: sel, records: make(map[string]*record)}
}

// update takes a list over. members are the ids in the chosen groups; nil means
// that no group is chosen. Only if confirm is set does a list that is as doubtful
// as the one before it remove devices.
func (dir *directory) update(list map[string]entry, members map[string]bool, confirm bool) {
	dir.list = listing{listed: len(list)}
	before, missing := 0, 0
	for token, r := range dir.records {
		if !r.inAccount() {
			continue
		}
		before++
		if _, there := list[token]; !there {
			missing++
		}
	}
	doubt := doubtful(len(list), before, missing)
	for token, r := range dir.records {
		if _, there := list[token]; !there {
			dir.absent(r, doubt, confirm)
		}
	}
	for token, e := range list {
		r := dir.record(e.id, token)
		if r.name != e.name { // else the old string stays: the fleet shares it
			r.name = e.name
		}
		r.hash, r.raw = e.hash, e.raw
		r.listed, r.gone, r.missing, r.swept = true, false, false, false
	}
	dir.choose(members, confirm)
}

// absent takes it that the list lacks a device.
func (dir *directory) absent(r *record, doubt, confirm bool) {
	if doubt && r.inAccount() && (!confirm || !r.missing) {
		r.missing = r.missing || confirm
		dir.list.missing++
		return
	}
	r.listed, r.gone, r.missing, r.raw = false, true, false, nil
}

// inAccount reports whether the last list that was believed, or the stream if
// none was read yet, has the device in the account.
func (r *record) inAccount() bool { return r.listed || r.event.known() && !r.gone }

// choose decides which of the listed devices are polled.
func (dir *directory) choose(members map[string]bool, confirm bool) {
	before, missing, n := 0, 0, 0
	for _, r := range dir.records {
		in := members == nil || members[r.id]
		if r.listed && in {
			n++
		}
		if r.listed && r.member {
			before++
			if !in {
				missing++
			}
		}
	}
	doubt := doubtful(n, before, missing)
	for _, r := range dir.records {
		switch in := members == nil || members[r.id]; {
		case r.listed && r.member && !in && doubt && (!confirm || !r.left):
			r.left = r.left || confirm
			dir.list.left++
		default:
			r.member, r.left = in, false
		}
		r.chosen = r.listed && r.member && dir.sel.Matches(r.id)
		if r.chosen {
			dir.list.chosen++
		}
		if !r.chosen || r.event.known() && r.event.hash == r.hash {
			r.raw = nil // nothing of it is to be published
		}
	}
}

func (dir *directory) record(id, token string) *record {
	r := dir.records[token]
	if r == nil {
		r = &record{id: id}
		dir.records[token] = r
	}
	return r
}

// fleet returns all devices of the list, in the order of their ids.
func (dir *directory) fleet() []Device {
	all := make([]Device, 0, dir.list.listed+dir.list.missing)
	for _, r := range dir.records {
		if r.listed {
			all = append(all, Device{ID: r.id, Token: r.token(), Name: r.name, Chosen: r.chosen})
		}
	}
	slices.SortFunc(all, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// due returns the events to publish of the devices that owns claims, and marks
// these devices busy. reread is set if the content of an event has to be read
// from the API again.
func (dir *directory) due(owns func(token string) bool) (list []due, reread bool) {
	for _, r := range dir.records {
		d, ok := r.due(&dir.sel)
		switch {
		case !ok || !owns(r.token()):
		case d.change != removed && d.raw == nil:
			reread = true
		default:
			r.busy = true
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b due) int { return cmp.Compare(a.r.id, b.r.id) })
	return list, reread
}

// sweep returns the removed devices that still need their last position deleted,
// each once.
func (dir *directory) sweep(owns func(token string) bool) []*record {
	var list []*record
	for token, r := range dir.records {
		if r.event.change == removed && !r.listed && !r.swept && owns(token) {
			r.swept = true
			list = append(list, r)
		}
	}
	return list
}

// due returns the device's event that the stream lacks.
func (r *record) due(sel *Selection) (due, bool) {
	d := due{r: r, raw: r.raw, hash: r.hash, seq: r.event.seq}
	switch {
	case r.busy || r.missing || !r.listed && !r.gone:
		return d, false
	case !r.listed:
		// A device whose events aged out of the stream is known by its location.
		known := r.event.known() || r.met && r.event.change == noChange
		d.change, d.raw, d.hash = removed, nil, 0
		return d, known && sel.Matches(r.id)
	case !r.chosen || r.hash == 0:
		return d, false
	case r.event.change == noChange && r.met:
		// The event aged out of the stream. The device is not new.
		r.event.change, r.event.hash = added, r.hash
	}
	switch {
	case r.event.known() && r.event.hash == r.hash:
		r.raw = nil
		return d, false
	case r.refused == r.hash:
		return d, false
	case r.event.known():
		d.change = changed
	default:
		d.change, d.back = added, r.event.change == removed
	}
	return d, true
}

// stored takes it that the stream holds an event now.
func (r *record) stored(d *due, seq uint64) {
	r.busy = false
	r.event = Event{seq: seq, hash: d.hash, change: d.change}
	if r.hash == d.hash {
		r.raw = nil
	}
}

// load takes the state of the stream over.
func (dir *directory) load(images map[string]Image) {
	for token, im := range images {
		dir.record(im.ID, token)
	}
	for token, r := range dir.records {
		im, there := images[token]
		r.met = im.Met
		if !r.busy {
			r.event = im.Event
		}
		if !there && !r.listed && !r.busy {
			delete(dir.records, token)
		}
	}
}

// ReadEvent reads a device event, and keeps no part of the message. One that cannot
// be read counts as absent, but for its sequence.
func ReadEvent(s *publisher.Stored) Event {
	e := Event{seq: s.Seq}
	var device []byte
	err := rawjson.Members(s.Body, func(key, value []byte) bool {
		switch string(key) {
		case "change":
			e.change = readChange(value)
		case "device":
			device = value
		}
		return true
	})
	if err != nil {
		return Event{seq: s.Seq}
	}
	e.hash, _ = rawjson.Hash(device, nil) // without a hash it counts as changed
	return e
}

// readChange reads a change.
func readChange(value []byte) change {
	for c := added; c <= removed; c++ {
		if string(value) == `"`+c.String()+`"` {
			return c
		}
	}
	if text, _ := rawjson.Unquote(value); len(text) == 0 {
		return noChange
	}
	return unknownChange
}
