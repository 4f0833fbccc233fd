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

// says is the message of every line of the server's own.
const says = "nats-server reports"

// quiet is how long a line that was logged is not logged again.
const quiet = time.Minute

// logger passes the server's own lines on. What it says at start is for
// debugging; what it warns of is for the operator. What clients do wrong is a
// warning, and the same mistake is logged once a minute with a count. Safe for
// concurrent use.
type logger struct {
	log     *slog.Logger
	secrets []string // that no line may show

	mu    sync.Mutex
	error string                // guarded by mu: the last error
	seen  map[string]*repeating // guarded by mu
}

// repeating is a line that came lately.
type repeating struct {
	logged time.Time
	held   int // lines like it since
}

// Noticef logs what the server says at start and stop, for debugging.
func (l *logger) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Debugf logs for debugging.
func (l *logger) Debugf(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Tracef logs for debugging.
func (l *logger) Tracef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }

// Warnf logs what the operator should know.
func (l *logger) Warnf(format string, v ...any) { l.write(slog.LevelWarn, format, v) }

// Errorf logs what the operator should know, and keeps it for an error's text.
func (l *logger) Errorf(format string, v ...any) { l.write(slog.LevelError, format, v) }

// Fatalf does not end the process: Start reports it.
func (l *logger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

// client is the beginning of a line about one connection, which differs for each.
var client = regexp.MustCompile(`^(pipe|\S+:\d+) - (?:cid|mid|wid|mid_ws|lid|rid|gid):"?[^ ]*"? - (?:"[^"]*" - )*`)

func (l *logger) write(level slog.Level, format string, v []any) {
	text := masked(strings.TrimSpace(fmt.Sprintf(format, v...)), l.secrets)
	kind := text
	if m := client.FindStringSubmatch(text); m != nil {
		kind = text[len(m[0]):]
		level = min(level, slog.LevelWarn)
		if m[1] == "pipe" { // the bridge itself, which logs the same
			level = slog.LevelDebug
		}
	} else if level == slog.LevelError {
		l.mu.Lock()
		l.error = text
		l.mu.Unlock()
	}
	if strings.Contains(text, "errored: prior state file") { // after a kill: the server rebuilds what is missing
		level = slog.LevelDebug
	}
	held, again := 0, true
	if level > slog.LevelDebug {
		held, again = l.repeats(kind, time.Now())
	}
	switch {
	case !again:
	case held > 0:
		l.log.Log(context.Background(), level, says, "text", text, "suppressed", held)
	default:
		l.log.Log(context.Background(), level, says, "text", text)
	}
}

// mostKinds bounds how many kinds of lines are told apart.
const mostKinds = 256

// repeats reports whether a line of a kind is to be logged now, and how many like
// it were not since the last one.
func (l *logger) repeats(kind string, now time.Time) (held int, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.seen[kind]; r != nil {
		if now.Sub(r.logged) < quiet {
			r.held++
			return 0, false
		}
		held = r.held
	}
	if l.seen == nil || len(l.seen) >= mostKinds {
		l.seen = map[string]*repeating{}
	}
	l.seen[kind] = &repeating{logged: now}
	return held, true
}

func (l *logger) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.error == "" {
		return "no reason given"
	}
	return l.error
}
