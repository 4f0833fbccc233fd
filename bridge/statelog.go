package bridge

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"plaspy-bridge/bridge/ops"
)

const (
	// lastingState is the time that a part must be in a state before it is logged.
	// Short interruptions, and the start, are not logged.
	lastingState = 3 * time.Second
	// stateAgain is the least time between two logged reasons of the same state.
	stateAgain = time.Minute
)

// stateLog logs the health table. A part that is not ready or degraded is logged
// once, with its reason, and its recovery once.
type stateLog struct {
	log    *slog.Logger
	logged map[string]loggedState
}

type loggedState struct {
	ops.State
	since, at time.Time
}

// look logs the changes since it was last called.
func (l *stateLog) look(now time.Time, parts map[string]ops.PartStatus) {
	if l.logged == nil {
		l.logged = map[string]loggedState{}
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		was, known := l.logged[name]
		switch {
		case name == "lifecycle":
		case p.OK && !p.Degraded:
			if known {
				l.log.Info("part is healthy again", "part", name, "elapsed", now.Sub(was.since).Round(time.Second))
				delete(l.logged, name)
			}
		case now.Sub(p.Since) < lastingState:
		case known && was.OK == p.OK && (was.Reason == p.Reason || now.Sub(was.at) < stateAgain):
		default:
			since := p.Since
			if known {
				since = was.since
			}
			l.logged[name] = loggedState{State: p.State, since: since, at: now}
			if p.OK {
				l.log.Warn("part is degraded", "part", name, "reason", p.Reason)
			} else {
				l.log.Warn("part is not ready", "part", name, "reason", p.Reason)
			}
		}
	}
}
