package inbound

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lease decides which of several replicas consumes the inbound stream.
type Lease interface {
	// Hold blocks until this replica holds the lease; its error is that ctx
	// ended first.
	Hold(ctx context.Context) (Term, error)
}

// Term is the time for which a lease is held.
type Term struct {
	// Context ends when the lease is lost or released, and not when the
	// context of Hold does.
	Context context.Context
	// Valid reports whether the lease is held for sure. It looks at the clock,
	// so that it is right also in the instant after the process was paused.
	Valid func() bool
	// Release gives the lease to whoever wants it. It is called once.
	Release func()
}

// always is the lease of a replica that is alone.
type always struct{}

// Hold gives the lease at once.
func (always) Hold(ctx context.Context) (Term, error) {
	if ctx.Err() != nil {
		return Term{}, context.Cause(ctx)
	}
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	return Term{Context: held, Valid: func() bool { return true }, Release: release}, nil
}

// LeaseTTL is after how long a holder that is not heard of is replaced.
const LeaseTTL = 6 * time.Second

// KVLease is a lease in a key-value bucket: one key, written again by its holder
// with the revision that it last wrote, and taken over by whoever has seen the
// same revision for a time to live. No clocks are compared between replicas.
//
// A holder gives up a quarter of the time to live before another one may take
// over. What remains is the time that a process may be stopped between its last
// look at the clock and the request on the wire: only a process that is paused
// just there can post beside its successor, and only what it had in hand.
type KVLease struct {
	bucket jetstream.KeyValue
	key    string
	owner  string
	ttl    time.Duration
	log    *slog.Logger
}

// NewKVLease makes a lease. replica is shown in the bucket; the owner is this
// very process, so that two with the same name do not share it. A ttl of 0 is
// [LeaseTTL].
func NewKVLease(bucket jetstream.KeyValue, key, replica string, ttl time.Duration, log *slog.Logger) *KVLease {
	if ttl <= 0 {
		ttl = LeaseTTL
	}
	owner, err := json.Marshal(struct {
		Replica string `json:"replica"`
		Process string `json:"process"`
	}{replica, rand.Text()})
	if err != nil { // cannot happen: strings marshal
		owner = []byte(rand.Text())
	}
	return &KVLease{bucket: bucket, key: key, owner: string(owner), ttl: ttl, log: log}
}

// Hold waits for the lease and renews it until the term is released.
func (l *KVLease) Hold(ctx context.Context) (Term, error) {
	var seen uint64 // the revision of the holder's last sign of life
	since := time.Now()
	for {
		began := time.Now()
		revision, current, err := l.try(ctx, seen, time.Since(since) >= l.ttl)
		switch {
		case ctx.Err() != nil:
			return Term{}, fmt.Errorf("wait for lease: %w", context.Cause(ctx))
		case err != nil:
			l.log.Debug("lease cannot be looked at", "err", err)
		case revision != 0:
			l.log.Info("this replica posts inbound messages")
			return l.term(ctx, revision, began), nil
		}
		if current != seen || err != nil {
			// A holder that could not be asked about has not been silent.
			seen, since = current, time.Now()
		}
		sleep(ctx, l.ttl/6)
	}
}

// try takes the lease where it is free, or where stale tells that its holder,
// last heard of at the revision seen, is gone. revision is 0 where it was not
// taken, and current then the holder's.
func (l *KVLease) try(ctx context.Context, seen uint64, stale bool) (revision, current uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/2)
	defer cancel()
	entry, err := l.bucket.Get(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		revision, err = l.bucket.Create(ctx, l.key, []byte(l.owner))
	case err != nil:
		return 0, seen, err
	case stale && entry.Revision() == seen, string(entry.Value()) == l.owner:
		current = entry.Revision()
		revision, err = l.bucket.Update(ctx, l.key, []byte(l.owner), current)
	default:
		return 0, entry.Revision(), nil
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, current, nil // somebody was faster
	}
	return revision, current, err
}

// term starts the renewal of a lease that was taken at a time.
func (l *KVLease) term(ctx context.Context, revision uint64, taken time.Time) Term {
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &renewal{lease: l, revision: revision}
	r.last.Store(&taken)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		r.run(held)
	})
	return Term{
		Context: held,
		Valid:   func() bool { return held.Err() == nil && r.valid() },
		Release: func() {
			cancel()
			wg.Wait()
			r.release()
		},
	}
}

// renewal keeps a lease.
type renewal struct {
	lease    *KVLease
	revision uint64
	last     atomic.Pointer[time.Time] // when the last renewal that succeeded was sent
}

// valid looks at both clocks: the monotonic one stands still while a machine is
// suspended, the other one may be set.
func (r *renewal) valid() bool {
	last, now, limit := *r.last.Load(), time.Now(), r.lease.ttl*3/4
	return now.Sub(last) < limit && now.Round(0).Sub(last.Round(0)) < limit
}

// run renews until the lease is lost or ctx ends.
func (r *renewal) run(ctx context.Context) {
	l := r.lease
	for sleep(ctx, l.ttl/8) {
		sent := time.Now()
		err := r.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.last.Store(&sent)
		case errors.Is(err, errLease):
			l.log.Warn("another replica posts inbound messages now")
			return
		case !r.valid():
			l.log.Warn("lease could not be renewed, posting pauses", "err", err)
			return
		}
		if !r.valid() {
			l.log.Warn("lease was renewed too late, posting pauses")
			return
		}
	}
}

func (r *renewal) renew(ctx context.Context) error {
	l := r.lease
	ctx, cancel := context.WithTimeout(ctx, l.ttl/4)
	defer cancel()
	revision, err := l.bucket.Update(ctx, l.key, []byte(l.owner), r.revision)
	if err == nil {
		r.revision = revision
		return nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return err
	}
	// Perhaps it was the answer to the renewal before that was lost.
	entry, err := l.bucket.Get(ctx, l.key)
	switch {
	case err == nil && string(entry.Value()) == l.owner:
		r.revision = entry.Revision()
		return nil
	case err == nil, errors.Is(err, jetstream.ErrKeyNotFound):
		return errLease
	}
	return err
}

// release deletes the key unless somebody else has it.
func (r *renewal) release() {
	ctx, cancel := context.WithTimeout(context.Background(), r.lease.ttl/4)
	defer cancel()
	err := r.lease.bucket.Delete(ctx, r.lease.key, jetstream.LastRevision(r.revision))
	if err != nil {
		r.lease.log.Debug("lease could not be released, it runs out", "err", err)
	}
}
