package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/tick"
)

// keyWatchInterval is the time between two reads of the key file. Reading a few bytes
// costs nothing, and file system notifications miss the swapped symbolic links of a
// Kubernetes secret.
const keyWatchInterval = 2 * time.Second

// maxKeyBytes bounds the size of a key file, in case it is the wrong file.
const maxKeyBytes = 16 << 10

// KeySource returns the API key from the environment, or from a file that may change
// while the bridge runs. It is safe for concurrent use.
type KeySource struct {
	path string // empty if the key never changes
	log  *slog.Logger

	mu    sync.Mutex
	key   string // guarded by mu: the last good one
	fault string // guarded by mu: why the last read failed, or ""
}

// KeySource returns the source of the API key. It reads the key file, and returns an
// error if that has no key.
func (c Config) KeySource(log *slog.Logger) (*KeySource, error) {
	s := &KeySource{path: c.APIKeyFile, log: log, key: c.APIKey.Reveal()}
	if s.path == "" {
		return s, nil
	}
	key, err := readKey(s.path)
	if err != nil {
		return nil, Faults{{"PLASPY_API_KEY_FILE", fmt.Sprintf("names a file without a usable key: %v", err)}}
	}
	s.key = key
	return s, nil
}

// Key reads the file again and returns the key. If that fails, it returns the last
// good key and logs a warning once for each new reason. The error is always nil; it
// is there for callers that accept sources that may fail.
func (s *KeySource) Key() (string, error) {
	return s.refresh(), nil
}

// Watch calls changed, on its own goroutine, within [keyWatchInterval] of each
// change of the key in the file, until ctx is done. It returns at once if
// there is no file to watch.
func (s *KeySource) Watch(ctx context.Context, changed func()) {
	if s.path == "" {
		return
	}
	s.mu.Lock()
	seen := s.key
	s.mu.Unlock()
	ticker := tick.NewTicker(keyWatchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
			// Compare with the last key of this loop and not with the stored key: a token
			// request that read the new key first must not hide the change.
			if key := s.refresh(); key != seen {
				seen = key
				s.log.Info("API key changed")
				changed()
			}
		}
	}
}

// refresh reads the file, if there is one, and returns the key, which is the last good one
// if the file has none.
func (s *KeySource) refresh() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" {
		return s.key
	}
	key, err := readKey(s.path)
	if err != nil {
		if err.Error() != s.fault {
			s.log.Warn("could not read the API key file, keeping the previous key", "err", err)
		}
		s.fault = err.Error()
		return s.key
	}
	if s.fault != "" {
		s.log.Info("API key file is readable again")
	}
	s.fault, s.key = "", key
	return key
}

// readKey returns the content of a key file, without the line break at its end and
// the byte order mark that some editors put at its beginning.
func readKey(path string) (string, error) {
	if err := readable(path); err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", redact.FileError(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return "", redact.FileError(err)
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	key := strings.TrimRight(string(content), "\r\n")
	return key, plausibleKey(key)
}

// plausibleKey returns the reason why text cannot be an API key, without repeating it.
func plausibleKey(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errors.New("empty")
	case len(text) > maxKeyBytes:
		return errors.New("too long")
	case !utf8.ValidString(text), strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("not one line of text")
	default:
		return nil
	}
}
