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
	entries chan watched
	n       int // counts watches
	current jetstream.KeyWatcher
	opening bool
	opened  clock.Moment // when it was last tried
	synced  bool         // it has shown everything once
	broken  bool         // it is to be replaced
	plan    uint64       // the revision of the plan that it has shown
}

// watched is an entry and the watch that it came from. A nil entry means that
// everything that was in the bucket has come.
type watched struct {
	n     int
	entry jetstream.KeyValueEntry
}

// listen starts a watch, or another one if the present one shows nothing.
func (t *membership) listen() {
	w, o := &t.watch, &t.own
	patience := t.g.opts.Lease / 5
	if w.opening || w.n > 0 && t.now.Since(w.opened) < patience {
		return
	}
	switch {
	case w.current == nil, w.broken, !w.synced:
	case o.shown.revision < o.revision && t.now.Since(o.sent) >= patience:
	default:
		return
	}
	t.unwatch()
	w.n++
	w.opening, w.opened, w.broken = true, t.now, false
	w.synced, w.plan, o.shown.revision = false, 0, 0
	n := w.n
	t.async(func(ctx context.Context) func() {
		// The subscription ends with the context that it was made with.
		life, cancel := context.WithCancel(t.calls.ctx)
		stop := context.AfterFunc(ctx, cancel)
		current, err := t.kv.Watch(life, everyKey)
		inTime := stop()
		if err != nil {
			cancel()
			return func() { t.unopened(err) }
		}
		t.calls.wg.Go(func() {
			defer cancel()
			t.pump(n, current)
		})
		if !inTime { // it ends by itself
			return func() { t.unopened(context.DeadlineExceeded) }
		}
		return func() { w.current, w.opening = current, false }
	})
}

// pump hands entries to the loop. It reads on until the watch is closed, which
// otherwise would wait for a reader for ever.
func (t *membership) pump(n int, current jetstream.KeyWatcher) {
	stop := context.AfterFunc(t.calls.ctx, func() { _ = current.Stop() })
	defer stop()
	for e := range current.Updates() {
		select {
		case t.watch.entries <- watched{n, e}:
		case <-t.calls.ctx.Done():
		}
	}
}

func (t *membership) unopened(err error) {
	t.watch.opening = false
	if errors.Is(err, nats.ErrStreamNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		t.lost = fmt.Errorf("%w: it is gone", errStateLost)
		return
	}
	t.g.log.Debug("could not watch the replicas", "err", err)
}

func (t *membership) unwatch() {
	if t.watch.current != nil {
		current := t.watch.current
		t.watch.current = nil
		t.calls.wg.Go(func() { _ = current.Stop() })
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
		t.seeThrottle(e)
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
		t.g.abstain()
	}
}

func (t *membership) seeMember(e jetstream.KeyValueEntry) {
	var r record
	put := e.Operation() == jetstream.KeyValuePut && json.Unmarshal(e.Value(), &r) == nil && r.ID != ""
	if e.Key() == t.key {
		if put {
			t.seeOwn(e.Revision(), r)
		} else {
			t.lost = fmt.Errorf("%w: its key was deleted", errStateLost)
		}
		return
	}
	_, seated := t.plan.Seat(e.Key())
	_, known := t.members[e.Key()]
	if !put && !seated && !known {
		return // a remaining key of a replica that is long gone
	}
	m := t.member(e.Key())
	if m.revision != e.Revision() || m.watched != t.watch.n {
		m.heard = t.now
	}
	m.revision, m.watched = e.Revision(), t.watch.n
	if put && r.Beat >= m.record.Beat { // an entry of another program does not replace the member's own
		m.record = r
		m.differs = differing(t.g.opts.Settings, r.Settings)
	}
}

// seeAll handles entries that a new watch did not show although they existed
// before: its server lags, or the store was restored to an earlier state.
func (t *membership) seeAll() {
	t.watch.synced = true
	if t.plan.Epoch < t.g.epoch {
		// The bucket was lost between two memberships of this replica. Other replicas may
		// not have noticed yet.
		t.g.epoch = t.plan.Epoch
		t.g.abstain()
	}
	if t.plan.Epoch > 0 && t.watch.plan < t.plan.revision && !t.plan.missing {
		t.plan.missing, t.plan.missingSince = true, t.now
	}
	if t.own.revision > 0 && t.own.shown.revision < t.own.revision && !t.own.doubted {
		t.own.doubted, t.own.doubt, t.own.at = true, t.now, t.now // the next renewal decides
	}
	for _, m := range t.members {
		if m.watched != t.watch.n {
			m.revision, m.heard, m.watched = 0, t.now, t.watch.n
		}
	}
}

// member returns the state of a replica, and adds it if it is not known yet.
func (t *membership) member(key string) *member {
	m := t.members[key]
	if m == nil {
		m = &member{key: key, first: t.now, heard: t.now, watched: t.watch.n}
		t.members[key] = m
	}
	return m
}
