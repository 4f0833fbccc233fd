package replica

import (
	"os"
	"path/filepath"
	"testing"

	"plaspy-bridge/publisher/natstest"

	"github.com/nats-io/nats.go/jetstream"
)

// TestOlderStore: the broker comes back with a copy of its store in which some
// replicas have never been.
func TestOlderStore(t *testing.T) {
	t.Parallel()
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
	bGaveUp, cGaveUp := r.gaveUp(b), r.gaveUp(c)
	r.restart()
	r.await("the loss is noticed", func() bool { return bGaveUp() && cGaveUp() })
	r.awaitDivided(b, c)
}

// TestBucketDeleted: the bucket is created again, and no replica acts on the old
// state of another one.
func TestBucketDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	js := natstest.JetStream(t, r.server.Client(t))
	aGaveUp, bGaveUp := r.gaveUp(a), r.gaveUp(b)
	if err := js.DeleteKeyValue(t.Context(), subjects.ReplicasBucket()); err != nil {
		t.Fatal(err)
	}
	r.await("the loss is noticed", func() bool { return aGaveUp() && bGaveUp() })
	r.awaitDivided(a, b)
}

// TestKeyDeleted: an operator deletes everything in the bucket, key by key.
func TestKeyDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	kv := r.bucket()
	keys, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	aGaveUp, bGaveUp := r.gaveUp(a), r.gaveUp(b)
	for _, key := range keys {
		if err := kv.Purge(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	r.await("the loss is noticed", func() bool { return aGaveUp() || bGaveUp() })
	r.awaitDivided(a, b)
}

// TestPlanSpoiled: the members undo a change of the plan by another program.
func TestPlanSpoiled(t *testing.T) {
	t.Parallel()
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
			a, b := r.start("a", steady), r.start("b", steady)
			before := r.awaitOwners(a, b)
			if err := spoil(r.bucket()); err != nil {
				t.Fatal(err)
			}
			c := r.start("c", steady)
			for token, n := range r.awaitOwners(a, b, c) {
				if n != c && n != before[token] {
					t.Errorf("%s went from %s to %s", token, before[token].id, n.id)
				}
			}
		})
	}
}

func (r *rig) bucket() jetstream.KeyValue {
	r.Helper()
	js := natstest.JetStream(r, r.server.Client(r.T))
	kv, err := js.KeyValue(r.Context(), subjects.ReplicasBucket())
	if err != nil {
		r.Fatal(err)
	}
	return kv
}

// TestBucketAsItIs: a bucket that an operator made is used and not changed.
func TestBucketAsItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 50)
	js := natstest.JetStream(t, r.server.Client(t))
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

// TestOldPlan checks that an old plan stops no replica for good if its members left
// long ago, whether their keys say so or are deleted.
func TestOldPlan(t *testing.T) {
	t.Parallel()
	r := newRig(t, 50)
	gone := r.start("gone")
	r.awaitDivided(gone)
	kv := r.bucket()
	old, err := kv.Get(t.Context(), planKey)
	if err != nil {
		t.Fatal(err)
	}
	gone.leave()
	a := r.start("a")
	r.awaitDivided(a)
	b := r.start("b")
	r.awaitDivided(a, b)
	aGaveUp, bGaveUp := r.gaveUp(a), r.gaveUp(b)
	if _, err := kv.Put(t.Context(), planKey, old.Value()); err != nil {
		t.Fatal(err)
	}
	r.await("it is noticed", func() bool { return aGaveUp() && bGaveUp() })
	r.awaitDivided(a, b)
}

// TestEvict checks how a member is evicted: it depends on its known state, and its
// key counts.
func TestEvict(t *testing.T) {
	r := newRig(t, 0)
	js := natstest.JetStream(t, r.server.Client(t))
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: subjects.ReplicasBucket()})
	if err != nil {
		t.Fatal(err)
	}
	write := func(key, value string) uint64 {
		t.Helper()
		revision, err := kv.Put(t.Context(), key, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	silent := write("group.member.silent.x", `{"id":"silent"}`)
	alive := write("group.member.alive.x", `{"id":"alive"}`)
	renewed := write("group.member.alive.x", `{"id":"alive"}`)
	left := write("group.member.left.x", `{"id":"left","left":true}`)
	garbage := write("group.member.garbage.x", "garbage")
	deleted := write("group.member.deleted.x", `{"id":"deleted"}`)
	if err := kv.Delete(t.Context(), "group.member.deleted.x"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, key string
		known     uint64
		left      bool
		revision  uint64 // 0: a new one
	}{
		{"silent", "silent", silent, true, 0},
		{"alive", "alive", alive, false, renewed},
		{"alive and never seen", "alive", 0, false, renewed},
		{"gone and never seen", "left", 0, true, left},
		{"garbage and never seen", "garbage", 0, false, garbage},
		{"garbage", "garbage", garbage, true, 0},
		{"deleted", "deleted", deleted, true, 0},
		{"unheard of", "unheard", 0, true, 0},
	} {
		revision, gone, err := evict(t.Context(), kv, member{key: "group.member." + tt.key + ".x", revision: tt.known})
		if gone != tt.left || gone && err != nil || tt.revision > 0 && revision != tt.revision || gone && revision == 0 {
			t.Errorf("%s: gone %t at %d, %v, want %t at %d", tt.name, gone, revision, err, tt.left, tt.revision)
		}
	}
}
