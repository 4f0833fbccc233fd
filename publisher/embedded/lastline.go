package embedded

import "sync/atomic"

// lastLine keeps the newest of several goroutines' lines.
type lastLine struct{ p atomic.Pointer[string] }

func (l *lastLine) set(s string) { l.p.Store(&s) }

func (l *lastLine) get() string {
	if s := l.p.Load(); s != nil {
		return *s
	}
	return ""
}
