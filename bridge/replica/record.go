package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/publisher"
)

const (
	everyKey     = "group.>"
	planKey      = "group.plan"
	throttleKey  = "group.throttle"
	memberPrefix = "group.member."
)

// record is the value of a member's key.
type record struct {
	ID    string `json:"id"`
	Beat  uint64 `json:"beat"`            // counts this process's writes
	Ack   uint64 `json:"ack,omitempty"`   // the epoch of the plan that it obeys
	Load  int    `json:"load"`            // polls a minute that it would send; in earlier versions devices
	Posts int    `json:"posts,omitempty"` // posts a minute that it would send
	Limit int    `json:"limit"`           // its PLASPY_RATE_LIMIT
	Left  bool   `json:"left,omitempty"`  // it left or was evicted
	// Inbound shows whether it can post. It is empty in versions before the posting
	// seat.
	Inbound string `json:"inbound,omitempty"`
	// Posting means that its posts may be in flight. A member that has left may still
	// wait for their answers.
	Posting bool `json:"posting,omitempty"`
	// Settings are digests of its settings, by name. Earlier versions have none.
	Settings map[string]string `json:"settings,omitempty"`
}

// ownRecord is the state of this replica's own key.
type ownRecord struct {
	s       *session
	watch   *watch
	members *members

	revision uint64       // as last written; 0 means not yet
	beat     uint64       // of the last try
	ack      uint64       // to be written
	acked    uint64       // written
	posting  bool         // written
	sent     clock.Moment // when the last try was sent
	at       clock.Moment // when the next one is due
	writing  bool
	doubt    clock.Moment // when doubted became true
	doubted  bool         // the key may differ from the last write
	err      error        // of the last try
	load     Load         // as at the last renewal

	suspended bool // the lease ran out
	leaving   bool // remains only until sent posts are recorded
}

// record returns the present content of the key.
func (o *ownRecord) record() record {
	g := o.s.g
	r := record{ID: g.opts.ID, Beat: o.beat, Ack: o.ack, Limit: g.opts.Limit, Settings: g.opts.Settings}
	r.Load, r.Posts = max(o.load.Polls, 0), max(o.load.Posts, 0)
	switch {
	case !g.opts.Consumes:
		r.Inbound = inboundOff
	case o.load.NoAPI:
		r.Inbound = inboundUnable
	default:
		r.Inbound = inboundOn
	}
	r.Posting = g.seat.inUse()
	return r
}

// renew writes the own key if that is due: to join, to keep the lease, to
// acknowledge the plan that it has a seat in, or to say whether posts are in flight.
func (o *ownRecord) renew(seated bool) {
	switch {
	case o.writing, o.revision == 0 && !o.watch.synced:
		return
	case o.suspended && !o.watch.trusted():
		// A replica that lost its lease reads first. In a restored store revisions are
		// counted again, so the expected one may belong to another entry.
		return
	case o.doubted && o.s.now.Since(o.doubt) > o.s.g.every():
		o.s.lost = errStateLost
		return
	case !o.s.now.Before(o.at), seated && o.acked != o.ack && o.err == nil:
	case o.revision > 0 && o.err == nil && o.posting != o.s.g.seat.inUse():
	default:
		return
	}
	o.beat++
	o.sent, o.writing = o.s.now, true
	o.load = o.s.g.load()
	r, revision := o.record(), o.revision
	r.Left = o.leaving
	o.s.async(func(ctx context.Context) func() {
		revision, err := put(ctx, o.s.kv, o.s.key, r, revision)
		return func() { o.wrote(r, revision, err) }
	})
}

// wrote takes the outcome of a write of the own key.
func (o *ownRecord) wrote(r record, revision uint64, err error) {
	o.writing = false
	if err != nil && o.watch.own.beat == r.Beat && o.watch.own.revision > 0 { // stored, but the answer was lost
		revision, err = o.watch.own.revision, nil
	}
	if err == nil && o.err != nil {
		o.members.resetSilence()
	}
	o.err = err
	switch {
	case err == nil:
		o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
		o.at = o.sent.Add(o.s.g.every())
		sent := o.sent
		o.s.g.lease.Store(&sent)
		return
	case mismatch(err) && !o.doubted:
		// Evicted, or the answer to an earlier write was lost: the watch will show
		// which.
		o.doubted, o.doubt = true, o.s.now
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded):
		// There is no leader for the moment, or no bucket any more. A new watch shows
		// that, because it fails without a bucket.
		o.watch.broken = true
	}
	o.at = o.s.now.Add(o.s.g.opts.Lease / 20)
}

// see takes an entry of the own key that the watch shows.
func (o *ownRecord) see(revision uint64, r record) {
	if r.Left && (!o.leaving || !r.Posting) {
		o.s.lost = errEvicted
		return
	}
	o.watch.own.revision, o.watch.own.beat = revision, r.Beat
	if revision <= o.revision {
		return
	}
	// Only this replica writes this key, so this is the write in flight, or an earlier
	// one with a lost answer. The lease still counts from the last answered renewal,
	// and the next one can succeed now.
	o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
}

// missed handles the own key if a new watch did not show what it should hold.
func (o *ownRecord) missed() {
	if o.revision > 0 && o.watch.own.revision < o.revision && !o.doubted {
		o.doubted, o.doubt, o.at = true, o.s.now, o.s.now // the next renewal decides
	}
}

// open returns the bucket, and creates it if it is missing.
func (g *Group) open(ctx context.Context) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.Lease/2)
	defer cancel()
	name := g.opts.Subjects.ReplicasBucket()
	kv, err := g.opts.JS.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = g.opts.JS.CreateKeyValue(ctx, g.opts.Subjects.ReplicasConfig(g.opts.Replicas))
		if errors.Is(err, jetstream.ErrBucketExists) { // another replica was faster
			kv, err = g.opts.JS.KeyValue(ctx, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}

// memberKey is a key for one process, or for one membership of it.
func memberKey(id, nonce string) string {
	token := publisher.Encode(id)
	if len(token) > 128 { // the record has it in full
		token = token[:128]
	}
	return memberPrefix + token + "." + nonce
}

// put writes a key at a revision. Revision 0 means that there is no such key.
func put(ctx context.Context, kv jetstream.KeyValue, key string, v any, revision uint64) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	if revision == 0 {
		return kv.Create(ctx, key, data)
	}
	return kv.Update(ctx, key, data, revision)
}

// mismatch reports whether a write failed because the key is not at the expected
// revision.
func mismatch(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// evict writes that a member is gone, if nothing was heard of it since the
// revision; 0 means that nothing is known of its key. It returns the revision of
// the key, or 0 if that is unknown, and whether the member is gone.
func evict(ctx context.Context, kv jetstream.KeyValue, m member) (revision uint64, left bool, err error) {
	gone := m.record
	gone.Left, gone.Posting = true, false
	revision, err = put(ctx, kv, m.key, gone, m.revision)
	if !mismatch(err) {
		return revision, err == nil, err
	}
	// It is alive, or has left, or the server or an operator removed its key. The watch
	// need not show which, because it has shown the key already.
	entry, get := kv.Get(ctx, m.key)
	switch {
	case errors.Is(get, jetstream.ErrKeyNotFound) && m.revision > 0:
		revision, err = put(ctx, kv, m.key, gone, 0)
		return revision, err == nil, err
	case get != nil:
		return 0, false, err
	}
	var now record
	if json.Unmarshal(entry.Value(), &now) == nil && now.Left && !now.Posting {
		return entry.Revision(), true, nil
	}
	return entry.Revision(), false, err
}
