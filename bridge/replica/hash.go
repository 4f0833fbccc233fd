package replica

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// view is who works, as one of them sees it: rendezvous hashing gives a device
// to the member with the highest score, so that a member that comes or goes
// moves only what it gets or had.
type view struct {
	names []string // sorted
	seeds []uint64 // of the names
	me    int      // index in both
}

// newView returns nil where me is not among the names, which must differ.
func newView(names []string, me string) *view {
	v := &view{names: slices.Sorted(slices.Values(names))}
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

// mine reports whether the device with this hash is this replica's.
func (v *view) mine(device uint64) bool {
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

// views is what a replica may act on: what it owns by every one of them. Without
// any it owns nothing.
type views []*view

func (vs views) own(token string) bool {
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

// and restricts vs to what v gives too; nil gives nothing.
func (vs views) and(v *view) views {
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

func (vs views) equal(other views) bool {
	return slices.EqualFunc(vs, other, func(a, b *view) bool { return a.me == b.me && slices.Equal(a.names, b.names) })
}
