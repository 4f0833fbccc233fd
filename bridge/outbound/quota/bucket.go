package quota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/publisher"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// prefix begins the keys of reservations. Replicas watch other keys of the
	// bucket, and do not receive these.
	prefix = "quota."
	// callTimeout limits one read or write.
	callTimeout = 5 * time.Second
)

// Bucket is a [Store] in a key-value bucket, under quota.<device>.
type Bucket struct {
	open func(ctx context.Context) (jetstream.KeyValue, error)

	mu     sync.Mutex
	bucket jetstream.KeyValue // nil until open has succeeded
}

// NewBucket returns a store in the bucket that open returns. Open is called
// again at each call until it succeeds.
func NewBucket(open func(ctx context.Context) (jetstream.KeyValue, error)) *Bucket {
	return &Bucket{open: open}
}

// kv returns the bucket. Its handle holds names only, and stays valid if the
// bucket is deleted and created again.
func (b *Bucket) kv(ctx context.Context) (jetstream.KeyValue, error) {
	b.mu.Lock()
	bucket := b.bucket
	b.mu.Unlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bucket = bucket
	return bucket, nil
}

// readIdle is how long a reading of the bucket waits for the next reservation before it
// fails.
const readIdle = 5 * time.Second

var errReadIdle = fmt.Errorf("no entry for %v", readIdle)

// All implements [Store].
func (b *Bucket) All(ctx context.Context, f func(token string, r Reservation, revision uint64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(readIdle, func() { cancel(errReadIdle) })
	defer idle.Stop()
	kv, err := b.kv(ctx)
	if err != nil {
		return err
	}
	return publisher.ReadBucket(ctx, kv, prefix+"*", func(e jetstream.KeyValueEntry) {
		idle.Reset(readIdle)
		f(strings.TrimPrefix(e.Key(), prefix), decode(e.Value()), e.Revision())
	})
}

// Get implements [Store].
func (b *Bucket) Get(ctx context.Context, token string) (Reservation, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := b.kv(ctx)
	if err != nil {
		return Reservation{}, 0, err
	}
	e, err := kv.Get(ctx, prefix+token)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return Reservation{}, 0, nil
	case err != nil:
		return Reservation{}, 0, err
	}
	return decode(e.Value()), e.Revision(), nil
}

// Put implements [Store].
func (b *Bucket) Put(ctx context.Context, token string, r Reservation, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := b.kv(ctx)
	if err != nil {
		return 0, err
	}
	value, err := json.Marshal(r)
	if err != nil { // cannot happen: it holds numbers
		return 0, err
	}
	if revision == 0 {
		revision, err = kv.Create(ctx, prefix+token, value)
	} else {
		revision, err = kv.Update(ctx, prefix+token, value, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, ErrChanged
	}
	return revision, err
}

// decode reads a stored value. A malformed one comes out as a reservation that
// is not valid.
func decode(value []byte) Reservation {
	r := Reservation{Day: -1}
	if json.Unmarshal(value, &r) != nil {
		return Reservation{Day: -1}
	}
	return r
}
