package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

const (
	everyKey     = "group.>"
	planKey      = "group.plan"
	throttleKey  = "group.throttle"
	memberPrefix = "group.member."

	// bucketTTL clears away what is left of processes long gone. It is far
	// longer than a clock is likely to jump, because a server that expires what
	// is in use interrupts the work.
	bucketTTL = 24 * time.Hour
)

// record is what a replica says of itself in its key.
type record struct {
	ID    string `json:"id"`
	Beat  uint64 `json:"beat"`            // counts this process's writes
	Ack   uint64 `json:"ack,omitempty"`   // the epoch of the plan that it obeys
	Load  int    `json:"load"`            // polls a minute that it has to do; a version before posts counted: devices
	Posts int    `json:"posts,omitempty"` // posts a minute that it has to do
	Limit int    `json:"limit"`           // its PLASPY_RATE_LIMIT
	Left  bool   `json:"left,omitempty"`  // it is gone, by its own word or evicted
	// Inbound says whether it can post; empty: a version before the posting seat.
	Inbound string `json:"inbound,omitempty"`
	// Posting says that posts may be under way that it began with the seat. One
	// that has left may still wait for their answers.
	Posting bool `json:"posting,omitempty"`
	// Settings are digests of what it was told, by name; earlier versions have none.
	Settings map[string]string `json:"settings,omitempty"`
}

// open gives the bucket, which it creates where there is none.
func (g *Group) open(ctx context.Context) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.Lease/2)
	defer cancel()
	name := g.opts.Subjects.ReplicasBucket()
	kv, err := g.opts.JS.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = g.opts.JS.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "What the replicas of a bridge need to share the work.",
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

// memberKey is a key for one process, or one life of it in the group.
func memberKey(id, nonce string) string {
	token := publisher.Encode(id)
	if len(token) > 128 { // the record has it in full
		token = token[:128]
	}
	return memberPrefix + token + "." + nonce
}

// put writes a key at a revision, 0: where there is none.
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

// mismatch reports whether a write failed because the key is not at the revision
// that was expected.
func mismatch(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// evict writes that a member is gone, if nothing was heard of it since the
// revision; 0: nothing is known of its key. It gives the revision at which the
// key stands where it could tell, and whether the member is gone.
func evict(ctx context.Context, kv jetstream.KeyValue, m member) (revision uint64, left bool, err error) {
	gone := m.record
	gone.Left, gone.Posting = true, false
	revision, err = put(ctx, kv, m.key, gone, m.revision)
	if !mismatch(err) {
		return revision, err == nil, err
	}
	// Alive, or gone by its own word, or its key was taken away by the server or
	// an operator. The watch need not show which: it has shown the key already.
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
