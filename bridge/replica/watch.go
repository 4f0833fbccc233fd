package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/replica/plan"
)

// watch follows the bucket. This replica's own renewals show that it works: the
// client's ordered consumer takes half a minute to notice that the server has
// forgotten it.
type watch struct {
	s       *session
	entries chan watched
	n       int // counts watches
	current jetstream.KeyWatcher
	opening bool
	opened  clock.Moment // when it was last tried
	synced  bool         // it has shown everything once
	broken  bool         // it is to be replaced
	plan    uint64       // the revision of the plan that it has shown
	own     struct {     // as it has shown this replica's key
		revision, beat uint64
	}
	distrusted int // while the lease has run out, this watch and earlier ones are not trusted
}

// watched is an entry and the watch that it came from. A nil entry means that
// everything that was in the bucket has come.
type watched struct {
	n     int
	entry jetstream.KeyValueEntry
}

// distrust replaces the watch. Until then it is not trusted.
func (w *watch) distrust() { w.broken, w.distrusted = true, w.n }

// trusted reports whether another watch has shown everything since distrust.
func (w *watch) trusted() bool { return w.n > w.distrusted && w.synced }

// listen starts a watch, or another one if the present one shows nothing. The own key
// was last written with that revision, and the last try was sent at that moment.
func (w *watch) listen(written uint64, sent clock.Moment) {
	patience := w.s.g.opts.Lease / 5
	if w.opening || w.n > 0 && w.s.now.Since(w.opened) < patience {
		return
	}
	switch {
	case w.current == nil, w.broken, !w.synced:
	case w.own.revision < written && w.s.now.Since(sent) >= patience:
	default:
		return
	}
	w.unwatch()
	w.n++
	w.opening, w.opened, w.broken = true, w.s.now, false
	w.synced, w.plan, w.own.revision = false, 0, 0
	n := w.n
	w.s.async(func(ctx context.Context) func() {
		// The subscription ends with the context that it was made with.
		life, cancel := context.WithCancel(w.s.calls.ctx)
		stop := context.AfterFunc(ctx, cancel)
		current, err := w.s.kv.Watch(life, everyKey)
		inTime := stop()
		if err != nil {
			cancel()
			return func() { w.unopened(err) }
		}
		w.s.calls.wg.Go(func() {
			defer cancel()
			w.pump(n, current)
		})
		if !inTime { // it ends by itself
			return func() { w.unopened(context.DeadlineExceeded) }
		}
		return func() { w.current, w.opening = current, false }
	})
}

// pump hands entries to the loop. It reads on until the watch is closed, which
// otherwise would wait for a reader for ever.
func (w *watch) pump(n int, current jetstream.KeyWatcher) {
	stop := context.AfterFunc(w.s.calls.ctx, func() { _ = current.Stop() })
	defer stop()
	for e := range current.Updates() {
		select {
		case w.entries <- watched{n, e}:
		case <-w.s.calls.ctx.Done():
		}
	}
}

func (w *watch) unopened(err error) {
	w.opening = false
	if errors.Is(err, nats.ErrStreamNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		w.s.lost = fmt.Errorf("%w: it is gone", errStateLost)
		return
	}
	w.s.g.log.Debug("could not watch the replicas", "err", err)
}

func (w *watch) unwatch() {
	if w.current != nil {
		current := w.current
		w.current = nil
		w.s.calls.wg.Go(func() { _ = current.Stop() })
	}
}

// see takes one entry.
func (t *membership) see(w watched) {
	if w.n != t.watch.n {
		return
	}
	e := w.entry
	switch {
	case e == nil:
		t.seeAll()
	case e.Key() == planKey:
		t.seePlan(e)
	case e.Key() == throttleKey:
		t.throttle.see(e)
	case strings.HasPrefix(e.Key(), memberPrefix):
		t.seeMember(e)
	}
}

func (t *membership) seePlan(e jetstream.KeyValueEntry) {
	t.watch.plan = e.Revision()
	var p plan.Plan
	if e.Operation() == jetstream.KeyValuePut && json.Unmarshal(e.Value(), &p) == nil && p.Valid() {
		t.obey(p, e.Revision())
		return
	}
	// It was deleted, or another program wrote it. Members write it again. A newcomer
	// does not know the old content, and waits until all leases under it are over.
	t.plan.revision, t.plan.unreadable = e.Revision(), true
	if t.plan.Epoch == 0 {
		t.s.g.abstain()
	}
}

func (t *membership) seeMember(e jetstream.KeyValueEntry) {
	var r record
	put := e.Operation() == jetstream.KeyValuePut && json.Unmarshal(e.Value(), &r) == nil && r.ID != ""
	switch _, seated := t.plan.Seat(e.Key()); {
	case e.Key() != t.s.key:
		t.members.see(e, r, put, seated)
	case put:
		t.own.see(e.Revision(), r)
	default:
		t.s.lost = fmt.Errorf("%w: its key was deleted", errStateLost)
	}
}

// seeAll handles entries that a new watch did not show although they existed
// before: its server lags, or the store was restored to an earlier state.
func (t *membership) seeAll() {
	t.watch.synced = true
	if t.plan.Epoch < t.s.g.epoch {
		// The bucket was lost between two memberships of this replica. Other replicas may
		// not have noticed yet.
		t.s.g.epoch = t.plan.Epoch
		t.s.g.abstain()
	}
	if t.plan.Epoch > 0 && t.watch.plan < t.plan.revision && !t.plan.missing {
		t.plan.missing, t.plan.missingSince = true, t.s.now
	}
	t.own.missed()
	t.members.missed()
}
