package replica

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// ownKey is this replica's own key.
type ownKey struct {
	revision uint64 // as last written; 0: not yet
	beat     uint64 // of the last try
	ack      uint64 // to be written
	acked    uint64 // written
	posting  bool   // written
	sent     moment // when the last try was sent
	at       moment // when the next one is due
	writing  bool
	doubt    moment // since when the key may not be what was written ...
	doubted  bool   // ... if it may
	err      error  // of the last try
	load     Load   // as at the last renewal
	shown    struct {
		revision, beat uint64
	}
}

func (o *ownKey) record(g *Group) record {
	r := record{ID: g.opts.ID, Beat: o.beat, Ack: o.ack, Limit: g.opts.Limit, Settings: g.opts.Settings}
	r.Load, r.Posts = max(o.load.Polls, 0), max(o.load.Posts, 0)
	switch {
	case !g.opts.Consumes:
		r.Inbound = inboundOff
	case o.load.NoAPI:
		r.Inbound = inboundNoReach
	default:
		r.Inbound = inboundOn
	}
	r.Posting = g.seat.inUse()
	return r
}

func encode(r record) ([]byte, error) { return json.Marshal(r) }

// renew writes the own key where that is due: to join, to live, to acknowledge.
func (t *term) renew() {
	o := &t.own
	_, seated := t.plan.seat(t.key)
	switch {
	case o.writing, o.revision == 0 && !t.watch.synced:
		return
	case t.suspended && (t.watch.n <= t.blind || !t.watch.synced):
		// Whoever lost its lease looks first. Revisions count from anew in a
		// store that went back, so that the one expected may be another's.
		return
	case o.doubted && t.now.since(o.doubt) > t.g.every():
		t.lost = errStateLost
		return
	case t.now.steady >= o.at.steady, seated && o.acked != o.ack && o.err == nil:
	case o.revision > 0 && o.err == nil && o.posting != t.g.seat.inUse():
	default:
		return
	}
	o.beat++
	o.sent, o.writing = t.now, true
	if t.g.opts.Load != nil {
		o.load = t.g.opts.Load()
	}
	r, revision := o.record(t.g), o.revision
	r.Left = t.leaving
	t.aside(func(ctx context.Context) func() {
		revision, err := put(ctx, t.kv, t.key, r, revision)
		return func() { t.wrote(r, revision, err) }
	})
}

// wrote takes the outcome of a write of the own key.
func (t *term) wrote(r record, revision uint64, err error) {
	o := &t.own
	o.writing = false
	if err != nil && o.shown.beat == r.Beat && o.shown.revision > 0 { // stored, but the answer was lost
		revision, err = o.shown.revision, nil
	}
	if err == nil && o.err != nil {
		t.deaf()
	}
	o.err = err
	switch {
	case err == nil:
		o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
		o.at = o.sent
		o.at.steady += t.g.every()
		sent := o.sent
		t.g.lease.Store(&sent)
		return
	case mismatch(err) && !o.doubted:
		// Evicted, or an earlier write was stored whose answer was lost: the
		// watch will show which.
		o.doubted, o.doubt = true, t.now
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded):
		// No leader for the moment, or no bucket any more. That shows in a new
		// watch, which fails where there is none.
		t.watch.broken = true
	}
	o.at = t.now
	o.at.steady += t.g.opts.Lease / 20
}

// seeOwn takes what the watch shows of the own key.
func (t *term) seeOwn(revision uint64, r record) {
	o := &t.own
	if r.Left && !(t.leaving && r.Posting) {
		t.lost = errEvicted
		return
	}
	o.shown.revision, o.shown.beat = revision, r.Beat
	if revision <= o.revision {
		return
	}
	// Nobody else writes this, so it is the write under way, or an earlier one
	// whose answer was lost. The lease counts from a renewal that is known to
	// have succeeded, and the next one can now.
	o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
}
