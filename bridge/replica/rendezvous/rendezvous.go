// Package rendezvous divides devices among replicas by rendezvous hashing: a
// device belongs to the member with the highest score, so that a member that
// joins or leaves moves only its own devices. It is pure.
package rendezvous

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// View is a division of all devices, as one of the members sees it.
type View struct {
	names []string // sorted
	seeds []uint64 // of the names
	me    int      // index in both
}

// New returns nil if me is not among the names. The names must differ.
func New(names []string, me string) *View {
	v := &View{names: slices.Sorted(slices.Values(names))}
	at, found := slices.BinarySearch(v.names, me)
	if !found {
		return nil
	}
	v.me = at
	for _, n := range v.names {
		v.seeds = append(v.seeds, xxhash.Sum64String(n))
	}
	return v
}

// mine reports whether the device with this hash belongs to the member.
func (v *View) mine(device uint64) bool {
	own := mix(device ^ v.seeds[v.me])
	for i, seed := range v.seeds {
		// Of equal scores the first name's wins.
		if s := mix(device ^ seed); s > own || s == own && i < v.me {
			return false
		}
	}
	return true
}

// mix is the finalizer of splitmix64: every bit of x moves every bit of the
// result with a chance of about one half.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Views are divisions that a member obeys all at once: it owns a device if it does
// by each of them. Without any it owns nothing.
type Views []*View

// Own reports whether the member owns a device, by the device's token.
func (vs Views) Own(token string) bool {
	if len(vs) == 0 {
		return false
	}
	device := xxhash.Sum64String(token)
	for _, v := range vs {
		if !v.mine(device) {
			return false
		}
	}
	return true
}

// And restricts vs to the devices that v owns too. A nil v owns none.
func (vs Views) And(v *View) Views {
	if len(vs) == 0 || v == nil {
		return nil
	}
	for _, old := range vs {
		if slices.Equal(old.names, v.names) {
			return vs
		}
	}
	return append(slices.Clip(vs), v)
}

// Within reports whether the member owned each device that it owns by vs by before too.
// It does if each old division has a new one with the same members or more, because
// members that join take devices and give none.
func (vs Views) Within(before Views) bool {
	if len(vs) == 0 {
		return true
	}
	for _, old := range before {
		if !slices.ContainsFunc(vs, func(v *View) bool { return v.extends(old) }) {
			return false
		}
	}
	return len(before) > 0
}

// extends reports whether the members of v are those of old, or those and more.
func (v *View) extends(old *View) bool {
	for _, name := range old.names {
		if _, found := slices.BinarySearch(v.names, name); !found {
			return false
		}
	}
	return v.names[v.me] == old.names[old.me]
}

// Equal reports whether both say the same.
func (vs Views) Equal(other Views) bool {
	return slices.EqualFunc(vs, other, func(a, b *View) bool { return a.me == b.me && slices.Equal(a.names, b.names) })
}
