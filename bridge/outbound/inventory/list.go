package inventory

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// entry is one device of a list that was read.
type entry struct {
	id, token, name string
	raw             json.RawMessage // valid UTF-8
	hash            uint64          // of raw; 0 if it has none
}

// usable returns the devices that count as in the account: the first of each id,
// not expired, with an id that can be part of a subject. left says, by id, why
// the others are left out.
func usable(now time.Time, devices []plaspy.Device) (list map[string]entry, left map[string]string) {
	list = make(map[string]entry, len(devices))
	left = make(map[string]string)
	for i := range devices {
		d := &devices[i]
		token, err := publisher.Token(d.ID)
		switch {
		case err != nil:
			left[d.ID] = err.Error()
		case !utf8.ValidString(d.ID):
			left[d.ID] = "its id is not UTF-8"
		case !d.Expires.IsZero() && !d.Expires.After(now):
			left[d.ID] = "it has expired"
		case list[token].token != "":
			left[d.ID] = "the list has it more than once, the first entry counts"
		default:
			list[token] = newEntry(d, token)
		}
	}
	return list, left
}

// newEntry makes the entry of a device. Bytes that are not UTF-8, which no event
// may have, are replaced by U+FFFD: the device is polled nevertheless.
func newEntry(d *plaspy.Device, token string) entry {
	e := entry{id: d.ID, token: token, name: d.Name, raw: d.Raw}
	if !utf8.Valid(e.raw) {
		e.raw = bytes.ToValidUTF8(e.raw, []byte("\uFFFD"))
	}
	if !utf8.ValidString(e.name) {
		e.name = strings.ToValidUTF8(e.name, "\uFFFD")
	}
	if hash, err := rawjson.Hash(e.raw, nil); err == nil {
		e.hash = hash
	}
	return e
}

// listedIDs returns the ids of the usable devices of a list.
func listedIDs(devices []plaspy.Device) iter.Seq[string] {
	list, _ := usable(time.Now(), devices)
	return func(yield func(string) bool) {
		for _, e := range list {
			if !yield(e.id) {
				return
			}
		}
	}
}

// doubtful reports whether a list that has n devices, and lacks some of those
// that were there before, is too short to be believed at once.
func doubtful(n, before, missing int) bool {
	return missing > 0 && n == 0 || missing >= 3 && 2*missing > before
}
