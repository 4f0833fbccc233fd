package gap

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/track"
	"plaspy-bridge/bridge/plaspy"
)

// TestHurryLeavesTheQuotaAlone: a stop ends the requests of the alert history, and not
// those for the daily quota, without which the fix would be dropped.
func TestHurryLeavesTheQuotaAlone(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"before the gap is read": true, "during the request": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, missing := &fleetingStore{}, 0
				r := New(Options{
					History: true, Max: 24 * time.Hour, Patience: time.Hour, BackoffInitial: time.Second, BackoffMax: time.Minute,
					Quota: quota.New(5000, store), Log: slog.New(slog.DiscardHandler), Found: func(int) {}, Missing: func() { missing++ },
				}, hangs{})
				now := time.Now()
				last, fix := now.Add(-20*time.Hour), &track.Fix{Time: now.Add(-time.Second)}
				tr := track.Track{Known: true, SeenAt: last, Times: track.Times{Newest: track.InstantOf(last)}}
				tr.Last.Time = track.InstantOf(last)
				var day quota.Day
				d := &Device{ID: "a", Token: "a", Day: &day, Patience: &Patience{}, Complain: func(string, error) {}}
				hurry := time.AfterFunc(time.Minute, r.Hurry)
				defer hurry.Stop()
				if early {
					r.Hurry()
				}
				found, err := r.Read(t.Context(), d, &tr, fix, now)
				if err != nil || found.Since.IsZero() || missing == 0 {
					t.Errorf("history owed since %v, %d missing, %v", found.Since, missing, err)
				}
				if store.puts == 0 || store.failed > 0 {
					t.Errorf("%d reservations written, %d failed", store.puts, store.failed)
				}
			})
		})
	}
}

// fleetingStore holds no reservation. It writes unless the context is cancelled
// meanwhile.
type fleetingStore struct{ puts, failed int }

func (*fleetingStore) All(context.Context, func(string, quota.Reservation, uint64)) error { return nil }

func (*fleetingStore) Get(context.Context, string) (quota.Reservation, uint64, error) {
	return quota.Reservation{}, 0, errors.New("not expected")
}

func (s *fleetingStore) Put(ctx context.Context, _ string, _ quota.Reservation, revision uint64) (uint64, error) {
	s.puts++
	select {
	case <-ctx.Done():
		s.failed++
		return 0, context.Cause(ctx)
	case <-time.After(time.Millisecond):
		return revision + 1, nil
	}
}

// hangs is an API that does not answer.
type hangs struct{}

func (hangs) Locations(ctx context.Context, _ string, _ []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	<-ctx.Done()
	return plaspy.Answer{}, context.Cause(ctx)
}

func (h hangs) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	return h.Locations(ctx, id, body, o)
}
