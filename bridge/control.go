package bridge

import (
	"context"
	"log/slog"

	"plaspy-bridge/bridge/control"
)

// controlling is live control.
type controlling struct {
	watcher *control.Watcher
	level   *slog.LevelVar // of the log; nil if it cannot be changed
}

// openControl makes the watcher of the entries of live control.
func (b *Bridge) openControl(context.Context) error {
	bucket := control.Open(b.pub.JetStream(), b.pub.Subjects(), b.cfg.StreamReplicas)
	b.watcher = control.NewWatcher(bucket, b.pub.Connected, b.logger("control"), b.metrics)
	return nil
}

// ControlLevel lets live control change the level of the log. Call it before
// [Bridge.Run].
func (b *Bridge) ControlLevel(level *slog.LevelVar) { b.level = level }

// control applies new rules of live control.
func (b *Bridge) control(r *control.Rules) {
	limit, level := b.cfg.RateLimit, b.cfg.LogLevel
	if fleet := r.Fleet(); fleet != nil {
		// Every replica has its share of the same limit, so that all together send no
		// more than the limit of the environment, whatever order they follow in.
		if fleet.RateLimit > 0 && (limit == 0 || fleet.RateLimit < limit) {
			limit = fleet.RateLimit
		}
		if fleet.LogLevel != nil {
			level = *fleet.LogLevel
		}
	}
	b.budget.SetLimit(limit)
	if b.level != nil {
		b.level.Set(level)
	}
}
