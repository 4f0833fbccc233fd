// Package glob matches device ids with patterns. The syntax is that of [path.Match],
// but a slash has no meaning in an id: "*" matches it too.
package glob

import (
	"errors"
	"path"
	"strings"
)

var (
	errUnfinished = errors.New("close each [ and write a character after each \\")
	errNegated    = errors.New("write [^a] for any character but a, and [\\!a] for ! or a, instead of [!a]")
)

// Check returns an error if a pattern is malformed, or has "[!", which other tools
// read as a negation and [path.Match] does not. The error is advice without the pattern.
func Check(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return errUnfinished
	}
	if negated(pattern) {
		return errNegated
	}
	return nil
}

// negated reports whether a set of characters begins with "!". The pattern is well
// formed.
func negated(pattern string) bool {
	inside := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case inside:
			inside = c != ']'
		case c == '[':
			inside = true
			if pattern[i+1] == '!' {
				return true
			}
		}
	}
	return false
}

// Match reports whether an id is the pattern or matches it. A malformed pattern
// matches only itself.
func Match(pattern, id string) bool {
	if pattern == id {
		return true
	}
	ok, err := path.Match(hidden(pattern), hidden(id))
	return err == nil && ok
}

// hidden replaces slashes, which [path.Match] treats in a special way.
func hidden(text string) string { return strings.ReplaceAll(text, "/", "\x00") }
