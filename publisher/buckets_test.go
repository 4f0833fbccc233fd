package publisher_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// TestReplicasBucketIsOne: a replica that needs the bucket before the streams are made
// makes the same one.
func TestReplicasBucketIsOne(t *testing.T) {
	srv := natstest.Start(t)
	js := natstest.JetStream(t, srv.Client(t))
	config := func(s publisher.Subjects) jetstream.StreamConfig {
		st, err := js.Stream(t.Context(), publisher.BucketStream(s.ReplicasBucket()))
		if err != nil {
			t.Fatal(err)
		}
		cfg := st.CachedInfo().Config
		cfg.Name, cfg.Subjects = "", nil
		return cfg
	}
	const replica, keeper = publisher.Subjects("replica"), publisher.Subjects("keeper")
	if _, err := js.CreateKeyValue(t.Context(), replica.ReplicasConfig(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(t.Context(), js, keeper.Streams(publisher.StreamOptions{Retention: time.Hour})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config(keeper), config(replica)); diff != "" {
		t.Errorf("the bucket of a replica differs: %s", diff)
	}
}

func TestReadBucket(t *testing.T) {
	srv := natstest.Start(t)
	js := natstest.JetStream(t, srv.Client(t))
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"x.2", "y.1", "x.1", "x.gone"} {
		if _, err := kv.PutString(t.Context(), key, "v"); err != nil {
			t.Fatal(err)
		}
	}
	if err := kv.Delete(t.Context(), "x.gone"); err != nil {
		t.Fatal(err)
	}
	for filter, want := range map[string][]string{"x.*": {"x.2", "x.1"}, ">": {"x.2", "y.1", "x.1"}, "z.*": nil} {
		var keys []string
		err := publisher.ReadBucket(t.Context(), kv, filter, func(e jetstream.KeyValueEntry) { keys = append(keys, e.Key()) })
		if err != nil || !slices.Equal(keys, want) {
			t.Errorf("%s: got %q, want %q: %v", filter, keys, want, err)
		}
	}
	if _, err := publisher.OpenBucket(t.Context(), js, "absent"); err == nil || !strings.Contains(err.Error(), "open bucket absent") {
		t.Errorf("a bucket that does not exist: %v", err)
	}
}

// silentBucket is a bucket with a watch that never shows anything.
type silentBucket struct{ jetstream.KeyValue }

func (silentBucket) Bucket() string { return "b" }

func (silentBucket) Watch(context.Context, string, ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return silentWatcher{}, nil
}

type silentWatcher struct{ jetstream.KeyWatcher }

func (silentWatcher) Updates() <-chan jetstream.KeyValueEntry { return nil }
func (silentWatcher) Stop() error                             { return nil }

// TestReadBucketGivesUp: a reading ends with its context if the server dies in the middle
// of it.
func TestReadBucketGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := errors.New("late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, late)
		defer cancel()
		began := time.Now()
		err := publisher.ReadBucket(ctx, silentBucket{}, ">", func(jetstream.KeyValueEntry) {})
		if !errors.Is(err, late) || !strings.Contains(err.Error(), "read bucket b: ") || time.Since(began) != 20*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
