package forget

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// A forgotten device stays forgotten longer than the bucket keeps a key, as long as a
// replica runs. Two replicas renew side by side, and an entry that is undone does not come back.
func TestKeysAreRenewed(t *testing.T) {
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	const keep = time.Second
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
	undone, lost := false, 0
	look := time.NewTicker(keep / 2)
	defer look.Stop()
	for limit := time.After(2 * time.Minute); ; {
		var e jetstream.KeyValueEntry
		select {
		case e = <-updates.Updates():
		case <-look.C:
			if _, err := kv.Get(t.Context(), keyPrefix+"a"); err == nil {
				continue
			}
			// A busy machine may stall for longer than the bucket keeps a key.
			if lost++; lost > 30 {
				t.Fatal("the key is not renewed in time")
			}
			if _, err := kv.Put(t.Context(), keyPrefix+"a", []byte("then")); err != nil {
				t.Fatal(err)
			}
			if first, err = kv.Get(t.Context(), keyPrefix+"a"); err != nil {
				t.Fatal(err)
			}
			continue
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

// A bridge that runs for a moment only renews the keys that are old: it needs not run
// for as long as the time between two looks.
func TestKeysAreRenewedAtTheStart(t *testing.T) {
	t.Parallel()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_replicas"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), keyPrefix+"a", []byte("then")); err != nil {
		t.Fatal(err)
	}
	watch, err := kv.Watch(t.Context(), keyPrefix+"a", jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Stop() }()
	l := &List{renew: time.Hour}
	old := &aged{kv, 2 * l.renew}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		l.Watch(ctx, func(context.Context) (jetstream.KeyValue, error) { return old, nil }, slog.New(slog.DiscardHandler), func() {})
	})
	select {
	case e := <-watch.Updates():
		if string(e.Value()) != "then" || !l.Has("a") || l.Has("b") {
			t.Errorf("value %q, or not forgotten", e.Value())
		}
	case <-time.After(time.Minute):
		t.Fatal("the key is not renewed")
	}
}

// aged is a bucket with keys that were written earlier.
type aged struct {
	jetstream.KeyValue

	by time.Duration
}

func (a *aged) Watch(ctx context.Context, keys string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w, err := a.KeyValue.Watch(ctx, keys, opts...)
	if err != nil {
		return nil, err
	}
	older := &agedWatcher{w, make(chan jetstream.KeyValueEntry)}
	go func() {
		defer close(older.updates)
		for e := range w.Updates() {
			if e != nil && e.Revision() == 1 {
				e = agedEntry{e, a.by}
			}
			select {
			case older.updates <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return older, nil
}

type agedWatcher struct {
	jetstream.KeyWatcher

	updates chan jetstream.KeyValueEntry
}

func (w *agedWatcher) Updates() <-chan jetstream.KeyValueEntry { return w.updates }

type agedEntry struct {
	jetstream.KeyValueEntry

	by time.Duration
}

func (e agedEntry) Created() time.Time { return e.KeyValueEntry.Created().Add(-e.by) }

// No device is polled before the forgotten ones are known, so that a bucket which is missing at first is
// soon looked for again, and one that stays missing once a second.
func TestMissingBucketIsSoonLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tries = 12
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var at []time.Duration
		began := time.Now()
		new(List).Watch(ctx, func(context.Context) (jetstream.KeyValue, error) {
			if at = append(at, time.Since(began)); len(at) == tries {
				cancel()
			}
			return nil, jetstream.ErrBucketNotFound
		}, slog.New(slog.DiscardHandler), func() {})
		if got := at[1]; got != firstRetry {
			t.Errorf("second try: got after %v, want %v", got, firstRetry)
		}
		if got := at[tries-1] - at[tries-2]; got > longestRetry || got < longestRetry*3/4 {
			t.Errorf("wait before the last try: got %v, want about %v", got, longestRetry)
		}
	})
}
