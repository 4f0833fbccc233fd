package forget

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// A forgotten device stays forgotten longer than the bucket keeps a key, as long as a
// replica runs. Two replicas renew side by side, and what is undone does not come back.
func TestKeysAreRenewed(t *testing.T) {
	js, err := jetstream.New(natstest.Start(t).Client(t))
	if err != nil {
		t.Fatal(err)
	}
	const keep = 3 * time.Second
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_replicas", TTL: keep})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"a", "b"} {
		if _, err := kv.Put(t.Context(), keyPrefix+token, []byte("then")); err != nil {
			t.Fatal(err)
		}
	}
	first, err := kv.Get(t.Context(), keyPrefix+"a")
	if err != nil {
		t.Fatal(err)
	}
	lists := []*List{{renew: keep / 20}, {renew: keep / 20}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, l := range lists {
		running.Go(func() {
			l.Watch(ctx, func(context.Context) (jetstream.KeyValue, error) { return kv, nil }, slog.New(slog.DiscardHandler), func() {})
		})
	}
	updates, err := kv.Watch(t.Context(), keyPrefix+"*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = updates.Stop() }()
	undone := false
	for limit := time.After(time.Minute); ; {
		var e jetstream.KeyValueEntry
		select {
		case e = <-updates.Updates():
		case <-limit:
			t.Fatal("the key is not renewed")
		}
		switch {
		case e == nil:
		case e.Key() == keyPrefix+"b" && !undone:
			undone = true
			if err := kv.Purge(t.Context(), keyPrefix+"b"); err != nil {
				t.Fatal(err)
			}
		case e.Key() == keyPrefix+"a" && e.Created().Sub(first.Created()) > 2*keep:
			if string(e.Value()) != "then" || !lists[0].Has("a") || !lists[1].Has("a") {
				t.Errorf("value %q, or not forgotten", e.Value())
			}
			if _, err := kv.Get(t.Context(), keyPrefix+"b"); err == nil || lists[0].Has("b") {
				t.Error("an undone device is forgotten again")
			}
			return
		}
	}
}
