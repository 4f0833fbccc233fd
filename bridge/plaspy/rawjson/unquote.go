package rawjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Unquote returns the text of a string value as [Members] or [Elements] gave it: a slice of value if
// nothing is escaped, a copy otherwise. ok is false if value is not a string. A lone surrogate
// becomes U+FFFD; bytes that are no UTF-8 stay as they are, so a caller that they would harm
// checks with utf8.Valid.
func Unquote(value []byte) (text []byte, ok bool) {
	s := scanner{data: value}
	if len(value) == 0 || value[0] != '"' {
		return nil, false
	}
	end, escaped := s.str(0)
	if end != len(value) {
		return nil, false
	}
	text = value[1 : end-1]
	if escaped {
		text = unescape(text)
	}
	return text, true
}

// Number returns a number as [Members] or [Elements] gave it. ok is false if value is not a number, or is beyond
// float64.
func Number(value []byte) (v float64, ok bool) {
	if len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false // such as Inf, which the parser reads
	}
	v, err := strconv.ParseFloat(string(value), 64)
	return v, err == nil
}

// IsNull reports whether value is the literal null.
func IsNull(value []byte) bool { return string(value) == "null" }

// unescape resolves the escapes of a string that the scanner has accepted.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		if raw[i] != 'u' {
			out = append(out, short(raw[i]))
			continue
		}
		r := hex4(raw[i+1:])
		i += 4
		if utf16.IsSurrogate(r) {
			low := rune(-1)
			if i+6 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
				low = hex4(raw[i+3:])
			}
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				i += 6
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

// short returns the byte that a one-letter escape stands for.
func short(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

func hex4(b []byte) (r rune) {
	for _, c := range b[:4] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
