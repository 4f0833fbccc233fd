// Package redact keeps secrets out of texts from outside: answers of an API, errors of libraries, headers of
// messages.
//
// To clean a text that may hold a secret, use [Secrets.Text]; for a JSON body of any size, use [Secrets.Bytes].
// For a text that can hold none, such as a header of a message that is shown on a terminal, use [Line].
//
// Texts are redacted first, then made printable, then cut. A run of 12 characters or more that a text shares
// with a secret is removed even if the rest of the secret is missing, so that no cut leaves a usable part. The
// search also finds secrets in JSON strings (\u002B, \/), percent-encoded, as HTML entities, in up to three
// layers of these, and keys and passwords in base64, as HTTP Basic authentication sends them.
package redact

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// Placeholder replaces a secret.
const Placeholder = "[redacted]"

const (
	maxLook = 64 << 10 // of a text that is cut to at most a few KiB afterwards
	minimum = 4        // shorter secrets cannot be distinguished from ordinary words
	kept    = 16       // secrets given to Add that are remembered
)

// Secrets is a set of secrets. The zero value is an empty set. It is safe for concurrent use.
type Secrets struct {
	mu    sync.Mutex
	fixed []string
	added []string // newest last, at most kept
	index atomic.Pointer[index]
}

// New returns a set of secrets that are never forgotten. Secrets of fewer than four bytes are ignored.
func New(secrets ...string) *Secrets {
	s := &Secrets{fixed: secrets}
	s.rebuildLocked()
	return s
}

// Add adds a secret, such as a key or a token that replaces another one. The set remembers the 16 secrets that
// were added last.
func (s *Secrets) Add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.added); len(secret) < minimum || n > 0 && s.added[n-1] == secret {
		return
	}
	known := slices.Contains(s.added, secret)
	s.added = slices.DeleteFunc(slices.Clone(s.added), func(old string) bool { return old == secret })
	s.added = append(s.added, secret)
	if len(s.added) > kept {
		s.added = s.added[1:]
	}
	if !known {
		s.rebuildLocked()
	}
}

// rebuildLocked makes the index again. Only New calls it without mu.
func (s *Secrets) rebuildLocked() { s.index.Store(newIndex(slices.Concat(s.fixed, s.added))) }

// Text returns a line of text that is fit for a log, an error or a header: without secrets, printable, and of
// at most limit bytes. It reads no more than the first 64 KiB of text.
func (s *Secrets) Text(text string, limit int) string {
	if len(text) > maxLook {
		text = text[:maxLook]
	}
	// White space in a text may spell a secret only after it has become single spaces, so both forms are read.
	text = string(s.Bytes([]byte(text)))
	return Cut(string(s.Bytes([]byte(printable(text)))), limit)
}

// Bytes returns b with each secret replaced, and b itself if it holds none. It never changes b. The placeholder
// needs no escaping in JSON.
func (s *Secrets) Bytes(b []byte) []byte {
	x := s.index.Load()
	if x == nil || len(b) < minimum {
		return b
	}
	spans := x.find(b)
	if len(spans) == 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	done := 0
	for _, at := range spans {
		out = append(append(out, b[done:at.from]...), Placeholder...)
		done = at.to
	}
	return append(out, b[done:]...)
}

// Line returns text as one printable line of at most limit bytes: control characters, text direction marks and
// white space become single spaces. It is for texts without secrets.
func Line(text string, limit int) string {
	if len(text) > maxLook {
		text = text[:maxLook]
	}
	return Cut(printable(text), limit)
}

// FileError returns the error of a file without the operation and the path. The path may
// be a secret that stands in the wrong variable. Other errors are returned as they are.
func FileError(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Cut shortens a text to at most limit bytes. Three points mark that the rest is missing.
func Cut(s string, limit int) string {
	const mark = "..."
	if len(s) <= limit {
		return s
	}
	if limit < len(mark) {
		return ""
	}
	return strings.ToValidUTF8(s[:limit-len(mark)], "") + mark
}
