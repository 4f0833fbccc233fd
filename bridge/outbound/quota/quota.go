package quota

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// parts is into how many reservations a day's quota is divided.
const parts = 32

// early is how much sooner than the even spread a result is still allowed: the
// schedule's clock and the wall clock differ by milliseconds.
const early = time.Second

// maxChanged is how many times in a row a reservation may turn out to have been
// written by another process before the attempt is given up.
const maxChanged = 4

var (
	// ErrUsedUp reports that a device's results of the day are used up, or too
	// far ahead of the even spread.
	ErrUsedUp = errors.New("the daily quota of results is used up, or too far ahead of an even spread over the day")
	// ErrChanged reports that the stored reservation has another revision than
	// the caller expected.
	ErrChanged = errors.New("another process wrote the reservation")
)

// Store keeps the reservations of all devices across restarts and for all
// replicas. Its methods are safe for concurrent use. A device is named by its
// token, the encoded id.
type Store interface {
	// All calls f with every reservation.
	All(ctx context.Context, f func(token string, r Reservation, revision uint64)) error
	// Get returns a device's reservation. Revision 0 means that there is none.
	Get(ctx context.Context, token string) (r Reservation, revision uint64, err error)
	// Put stores a reservation if the stored one still has that revision (0 means there
	// is none), and returns the new revision. Otherwise its error is [ErrChanged].
	Put(ctx context.Context, token string, r Reservation, revision uint64) (uint64, error)
}

// Quota is a limit of results per device and day that holds for all processes
// which share a store. A nil Quota has no limit.
type Quota struct {
	limit int
	store Store
}

// New returns a quota; 0 means no limit. Without a store, which may be nil,
// counts are lost at the end of the process.
func New(limit int, store Store) *Quota {
	if limit <= 0 {
		return nil
	}
	return &Quota{limit: limit, store: store}
}

// Stored is a reservation together with its revision.
type Stored struct {
	Reservation
	Revision uint64
}

// Load reads the reservations of all devices, by token.
func (q *Quota) Load(ctx context.Context) (map[string]Stored, error) {
	if q == nil || q.store == nil {
		return nil, nil
	}
	all := make(map[string]Stored)
	err := q.store.All(ctx, func(token string, r Reservation, revision uint64) {
		all[token] = Stored{r, revision}
	})
	if err != nil {
		return nil, fmt.Errorf("read daily quotas: %w", err)
	}
	return all, nil
}

// Adopt takes a reservation over that [Quota.Load] read, unless the device has
// written or read a later one since.
func (q *Quota) Adopt(now time.Time, d *Day, s Stored) {
	if q != nil && d.revision < s.Revision {
		d.adopt(now, q.limit, s.Reservation, s.Revision)
	}
}

// Next returns when a device may use another result; the zero time means now.
func (q *Quota) Next(now time.Time, d *Day) time.Time {
	if q == nil {
		return time.Time{}
	}
	return d.Next(now, q.limit)
}

// Admit reserves one result for a poll. If its error is [ErrUsedUp], the device
// may be polled again at the time that it returns. Other errors are the store's.
func (q *Quota) Admit(ctx context.Context, now time.Time, token string, d *Day) (time.Time, error) {
	if q == nil {
		return time.Time{}, nil
	}
	if at := q.Next(now, d); !at.IsZero() && (at.Sub(now) > early || q.Left(now, d) == 0) {
		return at, ErrUsedUp
	}
	err := q.Reserve(ctx, now, token, d, 1)
	if errors.Is(err, ErrUsedUp) { // another replica used it
		return q.Next(now, d), err
	}
	return time.Time{}, err
}

// Reserve reserves n results of a device before they are asked for. Its error is
// [ErrUsedUp] if there are fewer left, or the store's.
func (q *Quota) Reserve(ctx context.Context, now time.Time, token string, d *Day, n int) error {
	if q == nil {
		return nil
	}
	for changed := 0; ; changed++ {
		switch {
		case n > q.Left(now, d):
			return ErrUsedUp
		case q.store == nil, int(d.used)+n <= int(d.held):
			return nil
		}
		want := min(q.limit, int(d.used)+max(n, q.limit/parts))
		revision, err := q.store.Put(ctx, token, d.reserved(want), d.revision)
		switch {
		case err == nil:
			d.held, d.revision = int32(want), revision
			return nil
		case !errors.Is(err, ErrChanged) || changed == maxChanged:
			return fmt.Errorf("reserve daily quota: %w", err)
		}
		r, revision, err := q.store.Get(ctx, token)
		if err != nil {
			return fmt.Errorf("read daily quota: %w", err)
		}
		d.adopt(now, q.limit, r, revision)
	}
}

// Count adds n results to a device's day.
func (q *Quota) Count(now time.Time, d *Day, n int) {
	if q != nil {
		d.Add(now, n)
	}
}

// Return gives back results that were reserved and not used, except for the
// usual part. Otherwise a restart would lose them.
func (q *Quota) Return(ctx context.Context, token string, d *Day) error {
	if q == nil || q.store == nil {
		return nil
	}
	keep := int(d.used) + q.limit/parts
	if int(d.held) <= keep+q.limit/parts {
		return nil
	}
	// Lowered before the write: if its answer is lost, the results may belong to
	// another process already.
	d.held = int32(keep)
	revision, err := q.store.Put(ctx, token, d.reserved(keep), d.revision)
	if err != nil {
		return fmt.Errorf("return daily quota: %w", err)
	}
	d.revision = revision
	return nil
}

// Left returns how many of the day's results a device has not used yet. It must
// not be called if there is no limit.
func (q *Quota) Left(now time.Time, d *Day) int { return d.Left(now, q.limit) }

// Limited reports whether there is a limit.
func (q *Quota) Limited() bool { return q != nil }
