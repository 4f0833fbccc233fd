// Package logtest has a log that tests read while it is written.
package logtest

import (
	"bytes"
	"strings"
	"sync"
)

// Log keeps everything that is written to it. Its zero value is empty and ready to
// use. It is safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends to the log. It never returns an error.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns the log so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count returns how often a text occurs in the log so far.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }
