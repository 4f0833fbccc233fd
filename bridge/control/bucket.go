package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// callTimeout limits one request of a command to JetStream.
const callTimeout = 10 * time.Second

// lookTimeout is the same for a [Watcher], which tries again soon.
const lookTimeout = 2 * time.Second

// Bucket reads and writes the entries of one bridge. It is safe for concurrent
// use.
type Bucket struct {
	js       jetstream.JetStream
	name     string
	replicas int
}

// Open returns the bucket of a bridge. It makes no request. replicas is the number
// of copies that a cluster keeps of the bucket if it has to be created.
func Open(js jetstream.JetStream, s publisher.Subjects, replicas int) *Bucket {
	return &Bucket{js: js, name: s.ControlBucket(), replicas: max(replicas, 1)}
}

// Needs lists the permissions that a [Watcher] needs. The operator needs those of
// [publisher.Watching].
func Needs(s publisher.Subjects) []publisher.Permission {
	const why = "there is no live control"
	bucket := s.ControlBucket()
	stream := publisher.BucketStream(bucket)
	needs := slices.DeleteFunc(publisher.Watching(bucket, why), func(p publisher.Permission) bool {
		return p.Publish == publisher.BucketKey(bucket, ">") || strings.HasPrefix(p.Publish, "$JS.API.DIRECT.GET.")
	})
	needs = append(needs, publisher.Permission{Publish: "$JS.API.STREAM.CREATE." + stream, Why: why, Creates: stream})
	for i := range needs {
		needs[i].Optional = true
	}
	return needs
}

// Create makes the bucket if it does not exist. A bucket that exists stays as it
// is. It has the settings of any other bucket, so that an operator's tool that
// creates it as well finds no difference.
func (b *Bucket) Create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: b.name, Replicas: b.replicas})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("create bucket %s: %w", b.name, err)
	}
	return nil
}

// state identifies the content of the bucket: if it is the same, so are the
// entries.
type state struct {
	created     time.Time
	first, last uint64
	messages    uint64
}

// missing is the state of a bucket that does not exist.
var missing state

// state returns the state of the bucket, which is missing if there is none.
func (b *Bucket) state(ctx context.Context) (state, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stream, err := b.js.Stream(ctx, publisher.BucketStream(b.name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return missing, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("look up bucket %s: %w", b.name, err)
	}
	info := stream.CachedInfo()
	return state{info.Created, info.State.FirstSeq, info.State.LastSeq, info.State.Msgs}, nil
}

// Items reads all entries, in the order in which they were written. A bucket that
// does not exist has none.
func (b *Bucket) Items(ctx context.Context) ([]Item, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	kv, err := publisher.OpenBucket(ctx, b.js, b.name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var items []Item
	err = publisher.ReadBucket(ctx, kv, ">", func(e jetstream.KeyValueEntry) {
		items = append(items, Item{e.Key(), e.Value(), e.Revision(), e.Created()})
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

// Set writes an entry. The bucket is created if it does not exist.
func (b *Bucket) Set(ctx context.Context, key string, e Entry) error {
	if err := b.put(ctx, key, e.Encode()); !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	if err := b.Create(ctx); err != nil {
		return err
	}
	return b.put(ctx, key, e.Encode())
}

func (b *Bucket) put(ctx context.Context, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := b.js.KeyValue(ctx, b.name)
	if err == nil {
		_, err = kv.Put(ctx, key, value)
	}
	if err != nil {
		return fmt.Errorf("write to bucket %s: %w", b.name, err)
	}
	return nil
}

// Clear removes an entry, and reports whether there was one. Its value need not
// be readable.
func (b *Bucket) Clear(ctx context.Context, key string) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := b.js.KeyValue(ctx, b.name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return false, nil
	}
	if err == nil {
		_, err = kv.Get(ctx, key)
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return false, nil
	}
	if err == nil {
		err = kv.Delete(ctx, key)
	}
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer from JetStream: %w", err)
	}
	if err != nil {
		return false, fmt.Errorf("remove from bucket %s: %w", b.name, err)
	}
	return true, nil
}
