package replica

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestOlderStore: the broker comes back with a copy of its store in which some
// replicas have never been.
func TestOlderStore(t *testing.T) {
	r := newRig(t, 100)
	a := r.start("a")
	r.awaitDivided(a)
	r.server.Kill()
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(r.server.Dir())); err != nil {
		t.Fatal(err)
	}
	r.restart()
	b, c := r.start("b"), r.start("c")
	r.awaitDivided(a, b, c)
	a.kill()
	r.awaitDivided(b, c)
	r.server.Kill()
	if err := os.RemoveAll(r.server.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(r.server.Dir(), os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.await("the loss is noticed", func() bool { return b.last.Members == 0 && c.last.Members == 0 })
	r.awaitDivided(b, c)
}

// TestBucketDeleted: the bucket is made again, and nobody acts on what another
// one may still believe.
func TestBucketDeleted(t *testing.T) {
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	js, err := jetstream.New(r.server.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), subjects.ReplicasBucket()); err != nil {
		t.Fatal(err)
	}
	r.await("the loss is noticed", func() bool { return a.last.Members == 0 && b.last.Members == 0 })
	r.awaitDivided(a, b)
}

// TestKeyDeleted: an operator deletes everything in the bucket, key by key.
func TestKeyDeleted(t *testing.T) {
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	kv := r.bucket()
	keys, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := kv.Purge(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	r.await("the loss is noticed", func() bool { return a.last.Members == 0 || b.last.Members == 0 })
	r.awaitDivided(a, b)
}

// TestPlanSpoiled: what somebody else did to the plan its members undo.
func TestPlanSpoiled(t *testing.T) {
	for name, spoil := range map[string]func(jetstream.KeyValue) error{
		"deleted": func(kv jetstream.KeyValue) error { return kv.Delete(t.Context(), planKey) },
		"purged":  func(kv jetstream.KeyValue) error { return kv.Purge(t.Context(), planKey) },
		"no plan": func(kv jetstream.KeyValue) error { _, err := kv.Put(t.Context(), planKey, []byte("hello")); return err },
		"bad plan": func(kv jetstream.KeyValue) error {
			_, err := kv.Put(t.Context(), planKey, []byte(`{"epoch":9,"limit":1,"seats":[{"slots":2}]}`))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 50)
			a, b := r.start("a"), r.start("b")
			r.awaitDivided(a, b)
			before := r.byToken()
			if err := spoil(r.bucket()); err != nil {
				t.Fatal(err)
			}
			c := r.start("c")
			r.awaitDivided(a, b, c)
			for token, n := range r.byToken() {
				if n != c && n != before[token] {
					t.Errorf("%s went from %s to %s", token, before[token].id, n.id)
				}
			}
		})
	}
}

func (r *rig) bucket() jetstream.KeyValue {
	r.Helper()
	js, err := jetstream.New(r.server.Client(r.T))
	if err != nil {
		r.Fatal(err)
	}
	kv, err := js.KeyValue(r.Context(), subjects.ReplicasBucket())
	if err != nil {
		r.Fatal(err)
	}
	return kv
}

// TestBucketAsItIs: a bucket that an operator made is used and not changed.
func TestBucketAsItIs(t *testing.T) {
	r := newRig(t, 50)
	js, err := jetstream.New(r.server.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	want := jetstream.KeyValueConfig{Bucket: subjects.ReplicasBucket(), History: 5, Storage: jetstream.MemoryStorage, Description: "mine"}
	if _, err := js.CreateKeyValue(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	status, err := r.bucket().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := status.Config(); got.History != 5 || got.Storage != jetstream.MemoryStorage || got.TTL != 0 || got.Description != "mine" {
		t.Errorf("the bucket became %+v", got)
	}
}
