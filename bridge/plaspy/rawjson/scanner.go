package rawjson

import (
	"encoding/binary"
	"math/bits"
)

// scanner holds the text and the first fault. Its methods take an offset and return the offset behind
// the part that they read, or -1 after noting the fault: an error value for every step would double the cost.
type scanner struct {
	data []byte
	at   int
	msg  string
}

func (s *scanner) err() error { return &SyntaxError{Offset: s.at, Msg: s.msg} }

func (s *scanner) fail(at int, msg string) int {
	s.at, s.msg = min(at, len(s.data)), msg
	return -1
}

// open expects the opening bracket of the outermost value.
func (s *scanner) open(bracket byte, what string) int {
	i := s.space(0)
	if i == len(s.data) {
		return s.fail(i, "empty text")
	}
	if s.data[i] != bracket {
		return s.fail(i, "not an "+what)
	}
	return i + 1
}

// end expects nothing but white space from i on.
func (s *scanner) end(i int) error {
	if i = s.space(i); i < len(s.data) {
		s.fail(i, "text after the value")
		return s.err()
	}
	return nil
}

// space returns the end of the white space from i on. Machines write none, so the first look is for that.
func (s *scanner) space(i int) int {
	if i < len(s.data) && s.data[i] > ' ' {
		return i
	}
	return s.skip(i)
}

func (s *scanner) skip(i int) int {
	for i < len(s.data) && (s.data[i] == ' ' || s.data[i] == '\t' || s.data[i] == '\n' || s.data[i] == '\r') {
		i++
	}
	return i
}

// member reads a name, the colon and a value of the outermost object.
func (s *scanner) member(i int) (key, value []byte, next int) {
	i = s.space(i)
	start := i + 1
	i, escaped := s.name(i)
	if i < 0 {
		return nil, nil, -1
	}
	key = s.data[start : i-1]
	if escaped {
		key = unescape(key)
	}
	if i = s.colon(i); i < 0 {
		return nil, nil, -1
	}
	next = s.value(i, 1)
	if next < 0 {
		return nil, nil, -1
	}
	return key, s.data[i:next], next
}

func (s *scanner) name(i int) (next int, escaped bool) {
	if i >= len(s.data) || s.data[i] != '"' {
		return s.fail(i, "a member's name expected"), false
	}
	return s.str(i)
}

// colon expects the colon behind a name and returns the start of the value.
func (s *scanner) colon(i int) int {
	if i = s.space(i); i >= len(s.data) || s.data[i] != ':' {
		return s.fail(i, "':' expected")
	}
	return s.space(i + 1)
}

// separator expects a comma (more) or the closing bracket.
func (s *scanner) separator(i int, closing byte) (next int, more bool) {
	i = s.space(i)
	if i < len(s.data) {
		switch s.data[i] {
		case ',':
			return i + 1, true
		case closing:
			return i + 1, false
		}
	}
	return s.fail(i, "',' or a closing bracket expected"), false
}

// value reads any value; depth is how many brackets are open around it.
func (s *scanner) value(i, depth int) int {
	if i >= len(s.data) {
		return s.fail(i, "a value expected")
	}
	switch c := s.data[i]; c {
	case '"':
		i, _ = s.str(i)
		return i
	case '{':
		return s.object(i+1, depth+1)
	case '[':
		return s.array(i+1, depth+1)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	default:
		if c == '-' || isDigit(c) {
			return s.number(i)
		}
		return s.fail(i, "a value expected")
	}
}

func (s *scanner) object(i, depth int) int {
	if depth > MaxDepth {
		return s.fail(i, "nested too deeply")
	}
	if i = s.space(i); i < len(s.data) && s.data[i] == '}' {
		return i + 1
	}
	for more := true; more; {
		if i, _ = s.name(s.space(i)); i < 0 {
			return -1
		}
		if i = s.colon(i); i < 0 {
			return -1
		}
		if i = s.value(i, depth); i < 0 {
			return -1
		}
		if i, more = s.separator(i, '}'); i < 0 {
			return -1
		}
	}
	return i
}

func (s *scanner) array(i, depth int) int {
	if depth > MaxDepth {
		return s.fail(i, "nested too deeply")
	}
	if i = s.space(i); i < len(s.data) && s.data[i] == ']' {
		return i + 1
	}
	for more := true; more; {
		if i = s.value(s.space(i), depth); i < 0 {
			return -1
		}
		if i, more = s.separator(i, ']'); i < 0 {
			return -1
		}
	}
	return i
}

func (s *scanner) literal(i int, word string) int {
	if end := i + len(word); end <= len(s.data) && string(s.data[i:end]) == word {
		return end
	}
	return s.fail(i, "a value expected")
}

// plain marks the bytes that stand for themselves inside a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return t
}()

// special marks, by its high bit, the lowest of the eight bytes in w that does not stand for itself: one
// below 0x20, a quote or a backslash. A borrow may mark bytes above that one wrongly; only the lowest
// mark counts.
func special(w uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote := w ^ '"'*ones
	slash := w ^ '\\'*ones
	return ((w - 0x20*ones) | (quote - ones) | (slash - ones)) &^ w & highs
}

// str reads a string with its opening quote at i; escaped reports whether it holds a backslash.
func (s *scanner) str(i int) (next int, escaped bool) {
	data := s.data
	for i++; ; {
		for i+8 <= len(data) {
			marks := special(binary.LittleEndian.Uint64(data[i:]))
			if marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		for i < len(data) && plain[data[i]] {
			i++
		}
		if i >= len(data) {
			return s.fail(i, "unfinished string"), escaped
		}
		switch data[i] {
		case '"':
			return i + 1, escaped
		case '\\':
			escaped = true
			if i = s.escape(i + 1); i < 0 {
				return -1, escaped
			}
		default:
			return s.fail(i, "control character in a string"), escaped
		}
	}
}

// escape reads the part behind a backslash.
func (s *scanner) escape(i int) int {
	if i >= len(s.data) {
		return s.fail(i, "unfinished string")
	}
	switch s.data[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		for n := 1; n <= 4; n++ {
			if i+n >= len(s.data) || !isHex(s.data[i+n]) {
				return s.fail(i+n, "four hex digits expected")
			}
		}
		return i + 5
	}
	return s.fail(i, "unknown escape")
}

// number reads a number that begins with a minus or a digit.
func (s *scanner) number(i int) int {
	data := s.data
	if data[i] == '-' {
		i++
	}
	first := i
	if i = s.digits(i); i < 0 {
		return -1
	}
	if data[first] == '0' && i > first+1 {
		return s.fail(first+1, "leading zero")
	}
	if i < len(data) && data[i] == '.' {
		if i = s.digits(i + 1); i < 0 {
			return -1
		}
	}
	if i < len(data) && (data[i] == 'e' || data[i] == 'E') {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		return s.digits(i)
	}
	return i
}

// digits reads one digit or more.
func (s *scanner) digits(i int) int {
	start := i
	for i < len(s.data) && isDigit(s.data[i]) {
		i++
	}
	if i == start {
		return s.fail(i, "a digit expected")
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func isHex(c byte) bool { return isDigit(c) || (c|0x20)-'a' <= 5 }
