package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// reported is the message of every line that the server logs.
const reported = "nats-server reports"

// repeatInterval is the minimum time between two log lines of one kind.
const repeatInterval = time.Minute

// logger logs the server's own lines. Notices are logged at Debug. Errors of clients
// are logged as warnings, each kind once a minute with a count. Safe for concurrent
// use.
type logger struct {
	log     *slog.Logger
	secrets []string // texts that no line may contain

	mu    sync.Mutex
	error string                // guarded by mu: the last error
	seen  map[string]*repeating // guarded by mu
}

// repeating is the state of one kind of line.
type repeating struct {
	logged     time.Time
	suppressed int // lines since then
}

// Noticef logs notices of the server, such as those at start and stop, at Debug.
func (l *logger) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Debugf logs at Debug.
func (l *logger) Debugf(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Tracef logs at Debug.
func (l *logger) Tracef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Warnf logs at Warn.
func (l *logger) Warnf(format string, v ...any) { l.write(slog.LevelWarn, format, v) }

// Errorf logs at Error and keeps the text for the error of Start.
func (l *logger) Errorf(format string, v ...any) { l.write(slog.LevelError, format, v) }

// Fatalf is Errorf. It does not end the process; Start returns the error.
func (l *logger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

// client matches the prefix of a line about one connection.
var client = regexp.MustCompile(`^(pipe|\S+:\d+) - (?:cid|mid|wid|mid_ws|lid|rid|gid):"?[^ ]*"? - (?:"[^"]*" - )*`)

// routine matches warnings that need no action. After a kill, the server rebuilds the
// state files of its streams. Passwords that are variables are not in the file.
var routine = regexp.MustCompile(`errored: prior state file|Stream state outdated|Stream state detected prior state|Sourcing state is outdated|Plaintext passwords detected`)

func (l *logger) write(level slog.Level, format string, v []any) {
	text := masked(strings.TrimSpace(fmt.Sprintf(format, v...)), l.secrets)
	kind := text
	if m := client.FindStringSubmatch(text); m != nil {
		kind = text[len(m[0]):]
		level = min(level, slog.LevelWarn)
		if m[1] == "pipe" { // the bridge's own connection, which logs the error itself
			level = slog.LevelDebug
		}
	} else if level == slog.LevelError {
		l.mu.Lock()
		l.error = text
		l.mu.Unlock()
	}
	if routine.MatchString(text) {
		level = slog.LevelDebug
	}
	suppressed, again := 0, true
	if level > slog.LevelDebug {
		suppressed, again = l.repeats(kind, time.Now())
	}
	switch {
	case !again:
	case suppressed > 0:
		l.log.Log(context.Background(), level, reported, "text", text, "suppressed", suppressed)
	default:
		l.log.Log(context.Background(), level, reported, "text", text)
	}
}

// mostKinds bounds the number of kinds that are remembered.
const mostKinds = 256

// repeats reports whether to log a line of a kind now, and the number of lines of
// this kind that were suppressed before it.
func (l *logger) repeats(kind string, now time.Time) (suppressed int, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.seen[kind]; r != nil {
		if now.Sub(r.logged) < repeatInterval {
			r.suppressed++
			return 0, false
		}
		suppressed = r.suppressed
	}
	if l.seen == nil || len(l.seen) >= mostKinds {
		l.seen = map[string]*repeating{}
	}
	l.seen[kind] = &repeating{logged: now}
	return suppressed, true
}

func (l *logger) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.error == "" {
		return "no reason given"
	}
	return l.error
}
