package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/publisher"
)

const (
	everyKey     = "group.>"
	planKey      = "group.plan"
	throttleKey  = "group.throttle"
	memberPrefix = "group.member."

	// bucketTTL removes the keys of processes that are long gone. It is far longer than
	// any likely clock jump, because an expired key in use would interrupt the work, and
	// than a weekend, because the schedule's memory is in the bucket as well.
	bucketTTL = 4 * 24 * time.Hour
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
	shown    struct {
		revision, beat uint64
	}
}

func (o *ownRecord) record(g *Group) record {
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
// acknowledge a plan, or to say whether posts are in flight.
func (t *membership) renew() {
	o := &t.own
	_, seated := t.plan.Seat(t.key)
	switch {
	case o.writing, o.revision == 0 && !t.watch.synced:
		return
	case t.suspended && (t.watch.n <= t.distrusted || !t.watch.synced):
		// A replica that lost its lease reads first. In a restored store revisions are
		// counted again, so the expected one may belong to another entry.
		return
	case o.doubted && t.now.Since(o.doubt) > t.g.every():
		t.lost = errStateLost
		return
	case !t.now.Before(o.at), seated && o.acked != o.ack && o.err == nil:
	case o.revision > 0 && o.err == nil && o.posting != t.g.seat.inUse():
	default:
		return
	}
	o.beat++
	o.sent, o.writing = t.now, true
	o.load = t.g.load()
	r, revision := o.record(t.g), o.revision
	r.Left = t.leaving
	t.async(func(ctx context.Context) func() {
		revision, err := put(ctx, t.kv, t.key, r, revision)
		return func() { t.wrote(r, revision, err) }
	})
}

// wrote takes the outcome of a write of the own key.
func (t *membership) wrote(r record, revision uint64, err error) {
	o := &t.own
	o.writing = false
	if err != nil && o.shown.beat == r.Beat && o.shown.revision > 0 { // stored, but the answer was lost
		revision, err = o.shown.revision, nil
	}
	if err == nil && o.err != nil {
		t.resetSilence()
	}
	o.err = err
	switch {
	case err == nil:
		o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
		o.at = o.sent.Add(t.g.every())
		sent := o.sent
		t.g.lease.Store(&sent)
		return
	case mismatch(err) && !o.doubted:
		// Evicted, or the answer to an earlier write was lost: the watch will show
		// which.
		o.doubted, o.doubt = true, t.now
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded):
		// There is no leader for the moment, or no bucket any more. A new watch shows
		// that, because it fails without a bucket.
		t.watch.broken = true
	}
	o.at = t.now.Add(t.g.opts.Lease / 20)
}

// seeOwn takes an entry of the own key that the watch shows.
func (t *membership) seeOwn(revision uint64, r record) {
	o := &t.own
	if r.Left && (!t.leaving || !r.Posting) {
		t.lost = errEvicted
		return
	}
	o.shown.revision, o.shown.beat = revision, r.Beat
	if revision <= o.revision {
		return
	}
	// Only this replica writes this key, so this is the write in flight, or an earlier
	// one with a lost answer. The lease still counts from the last answered renewal,
	// and the next one can succeed now.
	o.revision, o.acked, o.posting, o.doubted = revision, r.Ack, r.Posting, false
}

// open returns the bucket, and creates it if it is missing.
func (g *Group) open(ctx context.Context) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.Lease/2)
	defer cancel()
	name := g.opts.Subjects.ReplicasBucket()
	kv, err := g.opts.JS.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = g.opts.JS.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "State that the replicas of a bridge share.",
			History: 1, TTL: bucketTTL, Replicas: g.opts.Replicas,
		})
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
