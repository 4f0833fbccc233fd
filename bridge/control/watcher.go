package control

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/tick"
)

const (
	// every is the time between two looks at the bucket. All replicas are to follow
	// an entry within a second.
	every = 2 * tick.Grid
	// patience is the time until the next look after one that failed although NATS
	// is connected, for instance because it is not permitted.
	patience = 3 * time.Second
	// recreate is the time until a bucket that was deleted is created again, so that
	// an operator can create it with other settings.
	recreate = 5 * time.Second
	// maxLines limits the log lines about unreadable values of one reading.
	maxLines = 20
)

// Watcher follows the bucket.
type Watcher struct {
	bucket    *Bucket
	connected func() bool
	log       *slog.Logger
	every     time.Duration // between two looks at the bucket
	rules     atomic.Pointer[Rules]

	// Of Run.
	seen    state
	items   []Item
	read    bool            // the bucket was read since Run began
	gone    time.Time       // since when a bucket that was there does not exist
	logged  map[string]bool // key and revision of the values that were reported
	trouble string
}

// NewWatcher makes a watcher. connected reports whether NATS can be reached. reg
// may be nil.
func NewWatcher(b *Bucket, connected func() bool, log *slog.Logger, reg prometheus.Registerer) *Watcher {
	w := &Watcher{bucket: b, connected: connected, log: log, every: every, logged: make(map[string]bool)}
	w.rules.Store(&Rules{})
	if reg == nil {
		return w
	}
	for label, count := range map[string]func(*Rules) int{
		"in_force":   (*Rules).Len,
		"unreadable": func(r *Rules) int { return len(r.unreadable) },
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "plaspy_bridge_control_entries",
			Help:        "Entries of the live control bucket, by state: in_force, or unreadable and without effect.",
			ConstLabels: prometheus.Labels{"state": label},
		}, func() float64 { return float64(count(w.Rules())) }))
	}
	return w
}

// Rules returns the rules in force. They are empty until the bucket was read.
func (w *Watcher) Rules() *Rules { return w.rules.Load() }

// Run follows the bucket until ctx is cancelled, and creates it if it does not
// exist. It calls apply with new rules, on its own goroutine.
func (w *Watcher) Run(ctx context.Context, apply func(*Rules)) {
	timer := tick.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := tick.Until(time.Now(), w.every)
		changed := false
		if w.connected() {
			var err error
			if changed, err = w.look(ctx); err != nil && ctx.Err() == nil {
				w.failed(err)
				if w.connected() {
					next = patience
				}
			}
		}
		now := time.Now()
		if ends := w.Rules().Ends(); changed || !ends.IsZero() && !ends.After(now) {
			rules := NewRules(now, w.items)
			w.report(rules)
			w.rules.Store(rules)
			apply(rules)
		}
		if ends := w.Rules().Ends(); !ends.IsZero() {
			next = min(next, max(time.Until(ends), time.Millisecond))
		}
		timer.Reset(next)
	}
}

// look reads the bucket if its state has changed. It returns true if there may be
// other entries than at the last reading.
func (w *Watcher) look(ctx context.Context) (changed bool, err error) {
	now, err := w.bucket.state(ctx)
	switch {
	case err != nil:
		return false, err
	case now == missing:
		return w.absent(ctx)
	case w.read && now == w.seen:
		w.fine()
		return false, nil
	}
	reading, cancel := context.WithTimeout(ctx, 2*lookTimeout)
	defer cancel()
	items, err := w.bucket.Items(reading)
	if err != nil {
		return false, err
	}
	changed = len(items) > 0 || len(w.items) > 0
	w.seen, w.items, w.read, w.gone = now, items, true, time.Time{}
	w.fine()
	return changed, nil
}

// absent creates a bucket that does not exist.
func (w *Watcher) absent(ctx context.Context) (changed bool, err error) {
	if w.gone.IsZero() && w.seen != missing {
		w.gone = time.Now()
	}
	changed = len(w.items) > 0
	w.seen, w.items, w.read = missing, nil, true
	if time.Since(w.gone) >= recreate { // at once if it never existed
		creating, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		err = w.bucket.Create(creating)
	}
	return changed, err
}

func (w *Watcher) failed(err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if text != w.trouble {
		w.trouble = text
		w.log.Warn("could not read live control, keeping the last entries", "err", text)
	}
}

func (w *Watcher) fine() {
	if w.trouble != "" {
		w.trouble = ""
		w.log.Info("live control is readable again")
	}
}

// report logs new rules, and each unreadable value once.
func (w *Watcher) report(r *Rules) {
	w.log.Info("live control changed", "entries", r.Len(), "unreadable", len(r.unreadable))
	logged := make(map[string]bool, len(r.unreadable))
	lines := 0
	for _, u := range r.unreadable {
		id := fmt.Sprint(u.Key, " ", u.Revision)
		logged[id] = true
		if w.logged[id] || lines >= maxLines {
			continue
		}
		lines++
		w.log.Warn("ignoring a malformed control entry", "key", redact.Line(u.Key, maxText), "seq", u.Revision, "reason", u.Reason)
	}
	w.logged = logged
}
