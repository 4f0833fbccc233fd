package message

import (
	"strings"
	"unicode"
)

// maxText bounds the length of a text that the bridge makes, in bytes.
const maxText = 1 << 10

// Text makes any text the value of a header: one line of printable characters,
// at most 1 KiB.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-3], "") + "..."
	}
	return s
}

// brief is the beginning of a text.
func brief(s string) string {
	if len(s) <= 40 {
		return s
	}
	return strings.ToValidUTF8(s[:37], "") + "..."
}
