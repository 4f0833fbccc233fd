package outbound

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// fakeLedger is a ledger in memory whose writes fail on demand.
type fakeLedger struct {
	mu       sync.Mutex
	rows     map[string]ledgerRow
	revision uint64
	fail     func() (before, after bool) // an error instead of the write, or of its answer
	writes   int
}

var errLost = errors.New("no answer")

func (l *fakeLedger) Entries(_ context.Context, f func(string, Entry, uint64)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for token, r := range l.rows {
		f(token, r.Entry, r.revision)
	}
	return nil
}

func (l *fakeLedger) Entry(_ context.Context, token string) (Entry, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows[token]
	return r.Entry, r.revision, nil
}

func (l *fakeLedger) Write(_ context.Context, token string, e Entry, revision uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var before, after bool
	if l.fail != nil {
		before, after = l.fail()
	}
	switch {
	case before:
		return 0, errLost
	case l.rows[token].revision != revision:
		return 0, ErrMoved
	}
	l.writes++
	l.revision++
	if l.rows == nil {
		l.rows = map[string]ledgerRow{}
	}
	l.rows[token] = ledgerRow{e, l.revision}
	if after {
		return 0, errLost
	}
	return l.revision, nil
}

// quotaPool is a pool that does nothing by itself.
func quotaPool(t testing.TB, limit int, ledger Ledger) (*Pool, *device) {
	t.Helper()
	o := options()
	o.DailyResults, o.Ledger = limit, ledger
	p := New(o, newFakeAPI(), plaspy.NewBudget(0, quiet, nil), plaspy.NewCircuit(plaspy.CircuitOptions{Log: quiet}), nil, subjects,
		schedule.NewFixed(time.Minute), quiet, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p, p.newDevice("d", "d")
}

// TestQuotaHoldsForAllProcessesTogether has several processes use one device's
// quota in any order, with restarts, readings of the ledger and writes that fail
// in either way, over some days.
func TestQuotaHoldsForAllProcessesTogether(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			limit := 1 + random.IntN(200)
			ledger := &fakeLedger{fail: func() (bool, bool) { return random.IntN(8) == 0, random.IntN(8) == 0 }}
			type process struct {
				*Pool
				d *device
			}
			start := func() process {
				p, d := quotaPool(t, limit, ledger)
				return process{p, d}
			}
			all := []process{start(), start(), start()}
			used, most := map[int64]int{}, 0
			for range 1500 {
				time.Sleep(time.Duration(random.IntN(180)) * time.Second)
				i := random.IntN(len(all))
				p := all[i]
				switch random.IntN(12) {
				case 0:
					all[i] = start()
				case 1:
					rows, err := p.loadQuotas(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					p.takeQuotas(time.Now(), rows)
				case 2:
					p.giveBack(t.Context(), p.d)
				default:
					n := 1 + random.IntN(3)*random.IntN(4)
					if p.reserve(t.Context(), p.d, n) != nil {
						continue
					}
					n = 1 + random.IntN(n)
					now := time.Now()
					p.d.quota.add(now, n)
					day := now.Unix() / secondsPerDay
					used[day] += n
					most = max(most, used[day])
				}
			}
			if most > limit {
				t.Errorf("seed %d: %d results in a day, the limit is %d", seed, most, limit)
			}
			if most < limit/3 {
				t.Errorf("seed %d: only %d results on the busiest day, the limit is %d", seed, most, limit)
			}
		})
	}
}

func TestQuotaAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(6 * time.Hour) // a quarter of the day is over
		now := time.Now()
		today := int(now.Unix() / secondsPerDay)
		const limit, noon = 400, 43200
		for _, tc := range []struct {
			name     string
			have     quota
			entry    Entry
			revision uint64
			want     quota
		}{
			{"nothing there", quota{}, Entry{}, 0, quota{day: int32(today), from: 21600}},
			{"gone", quota{day: int32(today), used: 5, held: 9, revision: 3}, Entry{}, 0, quota{day: int32(today), used: 5, held: 5}},
			{"its own", quota{day: int32(today), used: 5, held: 9, revision: 3}, Entry{today, 7, 9}, 3, quota{day: int32(today), used: 5, held: 9, revision: 3}},
			{"after a restart", quota{}, Entry{today, 7, 90}, 3, quota{day: int32(today), from: 7, used: 90, held: 90, revision: 3}},
			{"another's since", quota{day: int32(today), from: 9, used: 5, held: 9, revision: 3}, Entry{today, 7, 30}, 4, quota{day: int32(today), from: 7, used: 30, held: 30, revision: 4}},
			{"with a debt", quota{day: int32(today), used: 12, held: 9, revision: 3}, Entry{today, 0, 30}, 4, quota{day: int32(today), used: 33, held: 30, revision: 4}},
			{"an older state of the store", quota{day: int32(today), used: 50, held: 60, revision: 9}, Entry{today, 0, 30}, 4, quota{day: int32(today), used: 50, held: 30, revision: 4}},
			{"yesterday's", quota{}, Entry{today - 1, 0, 400}, 3, quota{day: int32(today), from: 21600, revision: 3}},
			{"tomorrow's", quota{}, Entry{today + 1, 0, 40}, 3, quota{day: int32(today + 1), used: 40, held: 40, revision: 3}},
			{"of a day far away", quota{}, Entry{today + 2, 0, 1}, 3, quota{day: int32(today), used: 200, held: 200, revision: 3}},
			{"garbage", quota{}, decodeEntry([]byte("\x00")), 3, quota{day: int32(today), used: 200, held: 200, revision: 3}},
			{"another text", quota{}, decodeEntry([]byte(`{"day":"now"}`)), 3, quota{day: int32(today), used: 200, held: 200, revision: 3}},
			{"negative", quota{}, Entry{today, 0, -1}, 3, quota{day: int32(today), used: 200, held: 200, revision: 3}},
			{"no second of a day", quota{}, Entry{today, noon * 2, 1}, 3, quota{day: int32(today), used: 200, held: 200, revision: 3}},
			{"more than there can be", quota{}, Entry{today, 0, 1 << 40}, 3, quota{day: int32(today), used: 1 << 29, held: 1 << 29, revision: 3}},
		} {
			got := tc.have
			got.adopt(now, limit, tc.entry, tc.revision)
			if got != tc.want {
				t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
			}
		}
	})
}

// TestQuotaAtMidnight: the new day begins with nothing used, and the ledger
// learns of it with the first result.
func TestQuotaAtMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fakeLedger{}
		p, d := quotaPool(t, 40, ledger)
		for d.quota.next(time.Now(), 40).IsZero() {
			if err := p.reserve(t.Context(), d, 1); err != nil {
				t.Fatal(err)
			}
			d.quota.add(time.Now(), 1)
		}
		p, d = quotaPool(t, 40, ledger) // a restart
		rows, err := p.loadQuotas(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.takeQuotas(time.Now(), rows)
		if at := d.quota.next(time.Now(), 40); at.IsZero() {
			t.Error("a restart grants another head start")
		}
		time.Sleep(24 * time.Hour)
		if at := d.quota.next(time.Now(), 40); !at.IsZero() {
			t.Errorf("after midnight the next result is allowed at %v only", at)
		}
		if err := p.reserve(t.Context(), d, 1); err != nil {
			t.Fatal(err)
		}
		want := Entry{Day: int(time.Now().Unix() / secondsPerDay), Reserved: 1}
		if got := ledger.rows["d"].Entry; got != want {
			t.Errorf("the ledger holds %+v, want %+v", got, want)
		}
	})
}

// TestQuotaWritesAreFew: a reservation lasts for a thirty-second of the quota.
func TestQuotaWritesAreFew(t *testing.T) {
	ledger := &fakeLedger{}
	p, d := quotaPool(t, 1440, ledger)
	for range 1440 {
		if err := p.reserve(t.Context(), d, 1); err != nil {
			t.Fatal(err)
		}
		d.quota.add(time.Now(), 1)
	}
	if ledger.writes > blocks+1 {
		t.Errorf("%d writes for a day, want %d", ledger.writes, blocks)
	}
	if err := p.reserve(t.Context(), d, 1); !errors.Is(err, errQuota) {
		t.Errorf("got %v beyond the quota, want %v", err, errQuota)
	}
}

// TestDailyResultsSurvive counts at the API over restarts and moves between two
// replicas, with the ledger that the bridge uses.
func TestDailyResultsSurvive(t *testing.T) {
	const limit, restarts = 40, 5
	srv := natstest.Start(t)
	api := newFakeAPI("d", "other")
	n := 0
	api.next["d"] = func(int) (string, error) { n++; return at(n, n), nil }
	o := options()
	o.DailyResults, o.Backfill, o.Ledger = limit, true, bucketLedger(t, srv)
	for i := range restarts {
		r := newRig(t, srv, api, o)
		if i == 0 {
			r.polls("d", 3) // a restart in the middle of the head start
		} else {
			r.polls("other", 40)
		}
		r.stop()
	}
	// Two replicas, to which the device belongs in turn.
	a, b := newRig(t, srv, api, o), newRig(t, srv, api, o)
	for i := range 6 {
		a.pool.Own(func(token string) bool { return token == "other" || i%2 == 0 })
		b.pool.Own(func(token string) bool { return token == "other" || i%2 == 1 })
		a.polls("other", 40)
	}
	a.stop()
	b.stop()
	if got := api.polls["d"]; got > minHead+1 || got < minHead/2 {
		t.Errorf("%d results used at once over all, want the one head start of %d", got, minHead)
	}
}

// TestQuotaThatCannotBeReserved: no result is used that is not spoken for, and
// once it can be the device is polled.
func TestQuotaThatCannotBeReserved(t *testing.T) {
	var works atomic.Bool
	tries := make(chan struct{}, 1000)
	ledger := &fakeLedger{fail: func() (bool, bool) {
		tries <- struct{}{}
		return !works.Load(), false
	}}
	o := options()
	o.DailyResults, o.Ledger = 40, ledger
	api := newFakeAPI("d")
	api.show("d", at(1, 1))
	r := newRig(t, natstest.Start(t), api, o)
	for range 4 {
		<-tries
	}
	why, ok := r.pool.reason("d")
	if !ok || len(why.Decisions) != 1 || why.Decisions[0].Result != "put off" || why.Decisions[0].Detail != "reserve daily quota: "+errLost.Error() {
		t.Errorf("got %+v", why.Decisions)
	}
	select {
	case <-api.polled:
		t.Error("polled without a reservation")
	default:
	}
	works.Store(true)
	r.polls("d", 1)
}

func bucketLedger(t testing.TB, srv *natstest.Server) *BucketLedger {
	t.Helper()
	js, err := jetstream.New(srv.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	return NewLedger(func(ctx context.Context) (jetstream.KeyValue, error) {
		return js.KeyValue(ctx, subjects.ReplicasBucket())
	})
}

func TestBucketLedger(t *testing.T) {
	srv := natstest.Start(t)
	srv.Publisher(t, subjects) // makes the bucket
	l := bucketLedger(t, srv)
	ctx := t.Context()
	if _, revision, err := l.Entry(ctx, "dev=201"); err != nil || revision != 0 {
		t.Fatalf("got revision %d and %v for an entry that is not there", revision, err)
	}
	first, err := l.Write(ctx, "dev=201", Entry{1, 2, 3}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(ctx, "dev=201", Entry{1, 2, 4}, 0); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v for a second first entry, want %v", err, ErrMoved)
	}
	second, err := l.Write(ctx, "dev=201", Entry{1, 2, 5}, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(ctx, "dev=201", Entry{1, 2, 6}, first); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v for a write at an old revision, want %v", err, ErrMoved)
	}
	if _, err := l.Write(ctx, "new", Entry{1, 2, 6}, 77); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v for a write at a revision that never was, want %v", err, ErrMoved)
	}
	kv, err := l.kv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"group.plan", "inbound"} {
		if _, err := kv.PutString(ctx, other, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	spoilt, err := kv.PutString(ctx, "quota.spoilt", "not an entry")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := l.Entries(ctx, func(token string, e Entry, revision uint64) { got[token] = fmt.Sprint(e.valid(), e, revision) }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"dev=201": fmt.Sprint(true, Entry{1, 2, 5}, second), "spoilt": fmt.Sprint(false, Entry{Day: -1}, spoilt)}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Replicas watch what is theirs, and are not bothered with these.
	group, err := kv.ListKeysFiltered(ctx, "group.>")
	if err != nil {
		t.Fatal(err)
	}
	for key := range group.Keys() {
		if key != "group.plan" {
			t.Errorf("a watcher of group.> sees %s", key)
		}
	}
	// An entry that went is begun anew.
	if err := kv.Delete(ctx, "quota.dev=201"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(ctx, "dev=201", Entry{1, 2, 6}, second); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v for a write at the revision of an entry that is gone, want %v", err, ErrMoved)
	}
	if _, err := l.Write(ctx, "dev=201", Entry{1, 2, 6}, 0); err != nil {
		t.Error(err)
	}
}

func TestBucketLedgerWithoutABucket(t *testing.T) {
	srv := natstest.Start(t)
	l := bucketLedger(t, srv)
	if err := l.Entries(t.Context(), nil); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("got %v, want %v", err, jetstream.ErrBucketNotFound)
	}
	srv.Publisher(t, subjects)
	if err := l.Entries(t.Context(), nil); err != nil {
		t.Errorf("once it is there: %v", err)
	}
}

// BenchmarkQuotas reads what the ledger holds of a large fleet.
func BenchmarkQuotas(b *testing.B) {
	const devices = 100_000
	srv := natstest.Start(b)
	srv.Publisher(b, subjects)
	l := bucketLedger(b, srv)
	js, err := jetstream.New(srv.Client(b))
	if err != nil {
		b.Fatal(err)
	}
	for i := range devices {
		if _, err := js.PublishAsync(fmt.Sprintf("$KV.%s.quota.device%06d", subjects.ReplicasBucket(), i), []byte(`{"day":20000,"from":0,"reserved":45}`)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	for b.Loop() {
		n := 0
		if err := l.Entries(b.Context(), func(string, Entry, uint64) { n++ }); err != nil || n != devices {
			b.Fatal(n, err)
		}
	}
}

// FuzzEntry: whatever is in the bucket, no more than the limit is used, and the
// device is asked again by the end of the day after at the latest.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"day":20000,"from":0,"reserved":45}`), uint64(3))
	f.Add([]byte(`{"day":1e9}`), uint64(1))
	f.Add([]byte(`[]`), uint64(9))
	f.Fuzz(func(t *testing.T, value []byte, revision uint64) {
		const limit = 100
		var q quota
		now := time.Now()
		q.adopt(now, limit, decodeEntry(value), revision)
		if q.used < 0 || q.held < 0 || q.from < 0 || q.from >= secondsPerDay {
			t.Fatalf("%q: %+v", value, q)
		}
		if at := q.next(now, limit); at.Sub(now) > 48*time.Hour {
			t.Fatalf("%q: not before %v", value, at)
		}
	})
}
