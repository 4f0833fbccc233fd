package outbound

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/publisher/natstest"
)

// TestDailyResultsSurvive counts at the API over restarts and moves between two
// replicas, with the store that the bridge uses.
func TestDailyResultsSurvive(t *testing.T) {
	t.Parallel()
	const limit, restarts, headStart = 40, 5, 10
	begun := time.Now().UTC().YearDay()
	srv := natstest.Start(t)
	api := newFakeAPI("d", "other")
	var n atomic.Int64
	api.next["d"] = func(int) (string, error) { v := int(n.Add(1)); return at(v, v), nil }
	o := options()
	js := natstest.JetStream(t, srv.Client(t))
	o.Quota = quota.New(limit, quota.NewBucket(func(ctx context.Context) (jetstream.KeyValue, error) {
		return js.KeyValue(ctx, subjects.ReplicasBucket())
	}))
	o.Backfill = true
	for i := range restarts {
		r := newRig(t, srv, api, o)
		if i == 0 {
			natstest.Eventually(t, "a part of the head start is used", func() bool { return r.polled("d") >= 3 })
		} else {
			r.polls("other", 40)
		}
		r.stop()
	}
	// Two replicas, to which the device belongs in turn.
	a, b := newRig(t, srv, api, o), newRig(t, srv, api, o)
	for i := range 6 {
		a.own(func(token string) bool { return token == "other" || i%2 == 0 })
		b.own(func(token string) bool { return token == "other" || i%2 == 1 })
		a.polls("other", 40)
	}
	a.stop()
	b.stop()
	most := headStart + 1
	if time.Now().UTC().YearDay() != begun {
		most += headStart // of the next day
	}
	if got := api.polls["d"]; got > most || got < headStart/2 {
		t.Errorf("%d results used at once over all, want the one head start of %d", got, headStart)
	}
}

var errLost = errors.New("no answer")

// brokenStore fails until it works.
type brokenStore struct {
	works atomic.Bool
	tries chan struct{}
}

func (*brokenStore) All(context.Context, func(string, quota.Reservation, uint64)) error { return nil }

func (*brokenStore) Get(context.Context, string) (quota.Reservation, uint64, error) {
	return quota.Reservation{}, 0, nil
}

func (s *brokenStore) Put(context.Context, string, quota.Reservation, uint64) (uint64, error) {
	s.tries <- struct{}{}
	if !s.works.Load() {
		return 0, errLost
	}
	return 1, nil
}

// TestQuotaThatCannotBeReserved: no result is used that is not reserved, and
// once it can be reserved the device is polled.
func TestQuotaThatCannotBeReserved(t *testing.T) {
	store := &brokenStore{tries: make(chan struct{}, 1000)}
	o := options()
	o.Quota = quota.New(40, store)
	api := newFakeAPI("d")
	api.show("d", at(1, 1))
	r := newRig(t, natstest.Start(t), api, o)
	for range 4 {
		<-store.tries
	}
	why, ok := r.pool.reason("d")
	if !ok || len(why.Decisions) != 1 || why.Decisions[0].Result != "deferred" || why.Decisions[0].Detail != "reserve daily quota: "+errLost.Error() {
		t.Errorf("got %+v", why.Decisions)
	}
	select {
	case <-api.polled:
		t.Error("polled without a reservation")
	default:
	}
	store.works.Store(true)
	natstest.Eventually(t, "a poll", func() bool { return r.polled("d") > 0 })
}
