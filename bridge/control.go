package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/bridge/glob"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/inventory"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/view"
)

// controlling is live control: the entries, and the parts that follow them.
type controlling struct {
	cfg     config.Config // of the environment, which live control changes
	budget  *plaspy.Budget
	pool    *outbound.Pool
	watcher *control.Watcher
	level   atomic.Pointer[slog.LevelVar] // of the log; nil if it cannot be changed
	// selected are the patterns that were given to the pool last.
	selected inventory.Selection
}

// openControl makes the watcher of the entries of live control.
func (b *Bridge) openControl(context.Context) error {
	bucket := control.Open(b.broker.pub.JetStream(), b.broker.pub.Subjects(), b.cfg.StreamReplicas)
	c := &b.controlling
	c.cfg, c.budget, c.pool = b.cfg, b.api.budget, b.polling.pool
	c.selected.Devices, c.selected.Exclude = b.cfg.Devices, b.cfg.DevicesExclude
	c.pool.SetTerms(termsOf(b.cfg, &control.Rules{}), false)
	c.watcher = control.NewWatcher(bucket, b.broker.pub.Connected, b.logger("control"), b.telemetry.metrics)
	return nil
}

// ControlLevel lets live control change the level of the log.
func (b *Bridge) ControlLevel(level *slog.LevelVar) { b.controlling.level.Store(level) }

// apply applies new rules of live control.
func (c *controlling) apply(r *control.Rules) {
	limit, level := c.cfg.RateLimit, c.cfg.LogLevel
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
	c.budget.SetLimit(limit)
	if of := c.level.Load(); of != nil {
		of.Set(level)
	}
	c.pool.SetTerms(termsOf(c.cfg, r), r.Groups())
	devices, exclude := c.cfg.Devices, c.cfg.DevicesExclude
	if fleet := r.Fleet(); fleet != nil && fleet.Devices != nil {
		devices = fleet.Devices
	}
	if fleet := r.Fleet(); fleet != nil && fleet.Exclude != nil {
		exclude = fleet.Exclude
	}
	if !slices.Equal(devices, c.selected.Devices) || !slices.Equal(exclude, c.selected.Exclude) {
		c.selected.Devices, c.selected.Exclude = devices, exclude
		c.pool.Select(devices, exclude)
	}
}

// termsOf returns the function that returns the terms of each device: those of live
// control, and else the weights of the environment.
func termsOf(cfg config.Config, r *control.Rules) outbound.TermsOf {
	weights := cfg.DeviceWeights()
	return func(id, token string, groups []string) outbound.Terms {
		t := r.Device(token, groups)
		w := outbound.Terms{Terms: schedule.Terms{Interval: t.Interval, Weight: t.Weight}, Paused: t.Paused, Controlled: t.Set()}
		if effects := t.Effects(); effects != nil {
			w.Control = effects
		}
		for i := 0; t.Weight == 0 && i < len(weights); i++ {
			if glob.Match(weights[i].Glob, id) {
				w.Weight = weights[i].Weight
				break
			}
		}
		return w
	}
}

// shownEntries limits the entries that the live view names.
const shownEntries = 10

// facts describes the entries in force for the live view, with the person who set
// each, if its value names one. short is the reason why the budget cannot hold their
// intervals, or "".
func (c *controlling) facts(short string) []view.Fact {
	var facts []view.Fact
	rules := c.watcher.Rules()
	for i, n := range rules.All() {
		if i == shownEntries {
			facts = append(facts, view.Fact{Name: "Live control", Value: fmt.Sprintf("and %d more entries", rules.Len()-i)})
			break
		}
		value := control.Title(n.Key) + ": " + n.Describe() + "; set "
		if n.SetBy != "" {
			value += "by " + n.SetBy + " "
		}
		facts = append(facts, view.Fact{Name: "Live control", Value: value + "at " + n.Written.UTC().Format(time.RFC3339)})
	}
	if n := len(rules.Unreadable()); n > 0 {
		facts = append(facts, view.Fact{Name: "Live control", Value: fmt.Sprintf("%d entries cannot be read and have no effect", n)})
	}
	if short != "" {
		facts = append(facts, view.Fact{Name: "Live control", Value: short})
	}
	return facts
}
