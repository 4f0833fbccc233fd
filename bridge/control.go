package bridge

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/schedule"
)

// controlling is live control.
type controlling struct {
	watcher *control.Watcher
	level   atomic.Pointer[slog.LevelVar] // of the log; nil if it cannot be changed
	// selected are the patterns that were given to the pool last.
	selected inventory.Selection
}

// openControl makes the watcher of the entries of live control.
func (b *Bridge) openControl(context.Context) error {
	bucket := control.Open(b.pub.JetStream(), b.pub.Subjects(), b.cfg.StreamReplicas)
	b.selected.Devices, b.selected.Exclude = b.cfg.Devices, b.cfg.DevicesExclude
	b.pool.SetTerms(termsOf(b.cfg, &control.Rules{}), false)
	b.watcher = control.NewWatcher(bucket, b.pub.Connected, b.logger("control"), b.metrics)
	return nil
}

// ControlLevel lets live control change the level of the log.
func (c *controlling) ControlLevel(level *slog.LevelVar) { c.level.Store(level) }

// applyControl applies new rules of live control.
func applyControl(b *Bridge, r *control.Rules) {
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
	if of := b.level.Load(); of != nil {
		of.Set(level)
	}
	b.pool.SetTerms(termsOf(b.cfg, r), r.Groups())
	devices, exclude := b.cfg.Devices, b.cfg.DevicesExclude
	if fleet := r.Fleet(); fleet != nil && fleet.Devices != nil {
		devices = fleet.Devices
	}
	if fleet := r.Fleet(); fleet != nil && fleet.Exclude != nil {
		exclude = fleet.Exclude
	}
	if !slices.Equal(devices, b.selected.Devices) || !slices.Equal(exclude, b.selected.Exclude) {
		b.selected.Devices, b.selected.Exclude = devices, exclude
		b.pool.Select(devices, exclude)
	}
}

// termsOf returns the function that returns the wishes for each device: those of live
// control, and else the weights of the environment.
func termsOf(cfg config.Config, r *control.Rules) outbound.TermsOf {
	weights := cfg.DeviceWeights()
	return func(id, token string, groups []string) outbound.Terms {
		t := r.Device(token, groups)
		w := outbound.Terms{Terms: schedule.Terms{Interval: t.Interval, Weight: t.Weight}, Paused: t.Paused}
		if effects := t.Effects(); effects != nil {
			w.Control = effects
		}
		for i := 0; t.Weight == 0 && i < len(weights); i++ {
			if inventory.Match(weights[i].Glob, id) {
				w.Weight = weights[i].Weight
				break
			}
		}
		return w
	}
}
