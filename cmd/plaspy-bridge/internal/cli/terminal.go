package cli

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// IsTerminal reports whether w is a character device. That includes /dev/null,
// which is harmless, and needs no system-specific call.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Shown quotes a text that could control the terminal. It returns "-" for "".
func Shown(s string) string {
	if s == "" {
		return "-"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
