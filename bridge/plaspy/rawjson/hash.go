package rawjson

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Hash returns a 64-bit hash of the object in obj over the members that ignore does not claim (nil means all).
//
// It does not depend on the order of members, nor on white space between them; it does depend on every
// byte of a value, so that 1.0 and 1, or two spellings of one string, differ. A name counts as the text it
// unescapes to. The hash is for telling answers of one device apart: equal texts always agree, two
// different ones collide by a chance of 2^-64, and crafted texts can collide. It is
// the same in every process and release of this package until a comment here says otherwise.
// The error is a [*SyntaxError] unless obj is exactly one well-formed object.
func Hash(obj []byte, ignore func(key []byte) bool) (uint64, error) {
	s := scanner{data: obj}
	i := s.open('{', "object")
	if i < 0 {
		return 0, s.err()
	}
	if i = s.space(i); i < len(obj) && obj[i] == '}' {
		return 0, s.end(i + 1)
	}
	var sum uint64
	for {
		key, value, next := s.member(i)
		if next < 0 {
			return 0, s.err()
		}
		if ignore == nil || !ignore(key) {
			sum += memberHash(key, value)
		}
		var more bool
		if i, more = s.separator(next, '}'); i < 0 {
			return 0, s.err()
		}
		if !more {
			return sum, s.end(i)
		}
	}
}

// Ignore returns a function for [Hash] that claims exactly these names. For the handful of names that
// are ever configured, comparing them in turn is quicker than a map.
func Ignore(names ...string) func(key []byte) bool {
	return func(key []byte) bool {
		for _, n := range names { //nolint:modernize // slices.Contains would allocate the key
			if string(key) == n {
				return true
			}
		}
		return false
	}
}

// memberHash mixes name and value so that their sum over members keeps them together: without the last
// rounds, two members that exchange their values would leave the sum as it was.
func memberHash(key, value []byte) uint64 {
	h := xxhash.Sum64(key)*0x9e3779b97f4a7c15 ^ bits.RotateLeft64(xxhash.Sum64(value), 31)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
