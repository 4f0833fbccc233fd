// Package rawjson walks JSON without decoding it.
//
// Most polls find nothing new, and finding that out must not cost a decode: the walk here visits the
// members of one object (or the elements of one array) as slices of the bytes that came, checks the
// whole of them against RFC 8259 on the way, and allocates nothing. It accepts the texts that
// encoding/json accepts, with two differences: nesting is limited to [MaxDepth], and each of
// [Members] and [Elements] takes only its own kind of value. Duplicate names are all visited.
// Invalid UTF-8 inside a string is let through, as encoding/json does; see [Unquote].
//
// Every function is safe for concurrent use; none keeps or changes its input.
package rawjson

import "strconv"

// MaxDepth is how deeply objects and arrays may nest, the outermost counted. It bounds the stack that
// a hostile answer can make the walk use; documented answers nest three deep.
const MaxDepth = 512

// SyntaxError is the reason and the place at which a text is not of the kind that the caller walks.
type SyntaxError struct {
	Offset int    // of the byte at which the walk stopped
	Msg    string // the fault; constant text, so never data of the input
}

// Error returns the message with its offset.
func (e *SyntaxError) Error() string {
	return "invalid JSON: " + e.Msg + " at offset " + strconv.Itoa(e.Offset)
}

// Members calls f for each member of the object in data, in order of appearance, duplicates included.
//
// The key is given without its quotes and unescaped (a copy only if it holds a backslash); the value
// is a slice of data without surrounding white space. Both may be kept for as long as data is not
// changed. When f returns false, the walk ends there with a nil error and the rest is not checked.
// Otherwise the error is a [*SyntaxError] unless data is exactly one well-formed object. f may already
// have been called for members in front of the error.
func Members(data []byte, f func(key, value []byte) bool) error {
	s := scanner{data: data}
	i := s.open('{', "object")
	if i < 0 {
		return s.err()
	}
	if i = s.space(i); i < len(data) && data[i] == '}' {
		return s.end(i + 1)
	}
	for {
		key, value, next := s.member(i)
		if next < 0 {
			return s.err()
		}
		if !f(key, value) {
			return nil
		}
		var more bool
		if i, more = s.separator(next, '}'); i < 0 {
			return s.err()
		}
		if !more {
			return s.end(i)
		}
	}
}

// Elements calls f for each element of the array in data, in order. Values, stopping and errors are
// as with [Members].
func Elements(data []byte, f func(value []byte) bool) error {
	s := scanner{data: data}
	i := s.open('[', "array")
	if i < 0 {
		return s.err()
	}
	if i = s.space(i); i < len(data) && data[i] == ']' {
		return s.end(i + 1)
	}
	for {
		i = s.space(i)
		next := s.value(i, 1)
		if next < 0 {
			return s.err()
		}
		if !f(data[i:next]) {
			return nil
		}
		var more bool
		if i, more = s.separator(next, ']'); i < 0 {
			return s.err()
		}
		if !more {
			return s.end(i)
		}
	}
}
