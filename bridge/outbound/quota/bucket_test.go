package quota

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

const subjects = publisher.Subjects("plaspy")

func TestMain(m *testing.M) { natstest.Main(m) }

func newBucket(t testing.TB, srv *natstest.Server) *Bucket {
	t.Helper()
	js := natstest.JetStream(t, srv.Client(t))
	return NewBucket(func(ctx context.Context) (jetstream.KeyValue, error) {
		return js.KeyValue(ctx, subjects.ReplicasBucket())
	})
}

func TestBucket(t *testing.T) {
	srv := natstest.Start(t)
	srv.Publisher(t, subjects) // makes the bucket
	b := newBucket(t, srv)
	ctx := t.Context()
	if _, revision, err := b.Get(ctx, "dev=201"); err != nil || revision != 0 {
		t.Fatalf("got revision %d and %v for a reservation that is not there", revision, err)
	}
	first, err := b.Put(ctx, "dev=201", Reservation{1, 2, 3}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "dev=201", Reservation{1, 2, 4}, 0); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v for a second first reservation, want %v", err, ErrChanged)
	}
	second, err := b.Put(ctx, "dev=201", Reservation{1, 2, 5}, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "dev=201", Reservation{1, 2, 6}, first); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v for a write at an old revision, want %v", err, ErrChanged)
	}
	if _, err := b.Put(ctx, "new", Reservation{1, 2, 6}, 77); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v for a write at a revision that never existed, want %v", err, ErrChanged)
	}
	kv, err := b.kv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"group.plan", "inbound"} {
		if _, err := kv.PutString(ctx, other, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	spoilt, err := kv.PutString(ctx, "quota.spoilt", "not a reservation")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := b.All(ctx, func(token string, r Reservation, revision uint64) { got[token] = fmt.Sprint(r.valid(), r, revision) }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"dev=201": fmt.Sprint(true, Reservation{1, 2, 5}, second), "spoilt": fmt.Sprint(false, Reservation{Day: -1}, spoilt)}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Replicas that watch their own keys do not receive these.
	group, err := kv.ListKeysFiltered(ctx, "group.>")
	if err != nil {
		t.Fatal(err)
	}
	for key := range group.Keys() {
		if key != "group.plan" {
			t.Errorf("a watcher of group.> sees %s", key)
		}
	}
	// A deleted reservation starts again from zero.
	if err := kv.Delete(ctx, "quota.dev=201"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "dev=201", Reservation{1, 2, 6}, second); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v for a write at the revision of a deleted reservation, want %v", err, ErrChanged)
	}
	if _, err := b.Put(ctx, "dev=201", Reservation{1, 2, 6}, 0); err != nil {
		t.Error(err)
	}
}

func TestBucketThatIsNotThereYet(t *testing.T) {
	srv := natstest.Start(t)
	b := newBucket(t, srv)
	if err := b.All(t.Context(), nil); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("got %v, want %v", err, jetstream.ErrBucketNotFound)
	}
	srv.Publisher(t, subjects)
	if err := b.All(t.Context(), nil); err != nil {
		t.Errorf("once it exists: %v", err)
	}
}

// BenchmarkAll reads the reservations of a large fleet.
func BenchmarkAll(b *testing.B) {
	const devices = 100_000
	srv := natstest.Start(b)
	srv.Publisher(b, subjects)
	bucket := newBucket(b, srv)
	js := natstest.JetStream(b, srv.Client(b))
	for i := range devices {
		if _, err := js.PublishAsync(fmt.Sprintf("$KV.%s.quota.device%06d", subjects.ReplicasBucket(), i), []byte(`{"day":20000,"from":0,"reserved":45}`)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	for b.Loop() {
		n := 0
		if err := bucket.All(b.Context(), func(string, Reservation, uint64) { n++ }); err != nil || n != devices {
			b.Fatal(n, err)
		}
	}
}

// silent is a bucket with a watch that never shows anything.
type silent struct {
	jetstream.KeyValue
	jetstream.KeyWatcher
}

func (silent) Bucket() string { return "b" }

func (s silent) Watch(context.Context, string, ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return s, nil
}

func (silent) Updates() <-chan jetstream.KeyValueEntry { return nil }

func (silent) Stop() error { return nil }

// TestBucketThatFallsSilent: a reading ends if the server dies in the middle of it.
func TestBucketThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(func(context.Context) (jetstream.KeyValue, error) { return silent{}, nil })
		began := time.Now()
		err := b.All(t.Context(), func(string, Reservation, uint64) {})
		if !errors.Is(err, errReadIdle) || time.Since(began) != readIdle {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
