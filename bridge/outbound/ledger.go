package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Ledger keeps what is spoken for of every device's daily quota, across
// restarts and for all replicas. Its methods are safe for concurrent use.
type Ledger interface {
	// Entries calls f with every entry there is.
	Entries(ctx context.Context, f func(token string, e Entry, revision uint64)) error
	// Entry gives a device's entry; revision 0: there is none.
	Entry(ctx context.Context, token string) (e Entry, revision uint64, err error)
	// Write stores an entry if there is one at that revision still, 0: none; else
	// its error is [ErrMoved].
	Write(ctx context.Context, token string, e Entry, revision uint64) (uint64, error)
}

// ErrMoved tells that an entry is not at the revision that it was believed to be.
var ErrMoved = errors.New("somebody else wrote it")

// errIdle tells that the server stopped to tell entries before the last one.
var errIdle = fmt.Errorf("no entry for %v", ledgerIdle)

// Entry is what is spoken for of one device's quota on one day. One that cannot
// be read has a negative day.
type Entry struct {
	Day      int `json:"day"`      // days since 1970, UTC
	From     int `json:"from"`     // second of the day at which counting began
	Reserved int `json:"reserved"` // results, from the start of the day on
}

func (e Entry) valid() bool {
	return e.Day > 0 && e.From >= 0 && e.From < secondsPerDay && e.Reserved >= 0
}

const (
	quotaPrefix   = "quota."
	ledgerTimeout = 5 * time.Second
	// ledgerIdle is how long a reading of all entries waits for the next one.
	ledgerIdle = 5 * time.Second
)

// BucketLedger is a ledger in a key-value bucket, under quota.<device>. Replicas
// that watch other keys do not see these.
type BucketLedger struct {
	open func(ctx context.Context) (jetstream.KeyValue, error)

	mu     sync.Mutex
	bucket jetstream.KeyValue // once it was there
}

// NewLedger makes a ledger in the bucket that open gives, which is asked until
// it gives one.
func NewLedger(open func(ctx context.Context) (jetstream.KeyValue, error)) *BucketLedger {
	return &BucketLedger{open: open}
}

// kv gives the bucket. Its handle holds nothing but names, and outlives a bucket
// that is made anew.
func (l *BucketLedger) kv(ctx context.Context) (jetstream.KeyValue, error) {
	l.mu.Lock()
	bucket := l.bucket
	l.mu.Unlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket = bucket
	return bucket, nil
}

// Entries implements [Ledger].
func (l *BucketLedger) Entries(ctx context.Context, f func(token string, e Entry, revision uint64)) error {
	// The subscription lives as long as its context.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(ledgerIdle, func() { cancel(errIdle) })
	defer idle.Stop()
	kv, err := l.kv(ctx)
	if err != nil {
		return err
	}
	w, err := kv.WatchFiltered(ctx, []string{quotaPrefix + "*"}, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read bucket: %w", err)
	}
	defer func() { _ = w.Stop() }() // it ends with the context as well
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("read bucket: %w", context.Cause(ctx))
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("read bucket: it ended before its time")
			case e == nil:
				return nil
			}
			idle.Reset(ledgerIdle)
			f(strings.TrimPrefix(e.Key(), quotaPrefix), decodeEntry(e.Value()), e.Revision())
		}
	}
}

// Entry implements [Ledger].
func (l *BucketLedger) Entry(ctx context.Context, token string) (Entry, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	kv, err := l.kv(ctx)
	if err != nil {
		return Entry{}, 0, err
	}
	e, err := kv.Get(ctx, quotaPrefix+token)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return Entry{}, 0, nil
	case err != nil:
		return Entry{}, 0, err
	}
	return decodeEntry(e.Value()), e.Revision(), nil
}

// Write implements [Ledger].
func (l *BucketLedger) Write(ctx context.Context, token string, e Entry, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	kv, err := l.kv(ctx)
	if err != nil {
		return 0, err
	}
	value, err := json.Marshal(e)
	if err != nil { // cannot happen: it holds numbers
		return 0, err
	}
	if revision == 0 {
		revision, err = kv.Create(ctx, quotaPrefix+token, value)
	} else {
		revision, err = kv.Update(ctx, quotaPrefix+token, value, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, ErrMoved
	}
	return revision, err
}

// decodeEntry reads a value; one that is no entry comes out as none that is
// valid.
func decodeEntry(value []byte) Entry {
	e := Entry{Day: -1}
	if json.Unmarshal(value, &e) != nil {
		return Entry{Day: -1}
	}
	return e
}
