package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestCodec(t *testing.T) {
	for _, want := range []map[string]entry{
		{},
		{"a": {1, []byte("x")}},
		{"a": {1, []byte{}}, "dev=201": {1 << 31, bytes.Repeat([]byte{0}, 300)}},
	} {
		got, ok := decode(encode(want))
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, ok, want)
		}
	}
}

// TestMalformed checks that no part of a value that cannot be read is used: each
// value cut short, other versions, and lengths that are too large.
func TestMalformed(t *testing.T) {
	good := encode(map[string]entry{"a": {1, []byte("memory")}, "b": {2, []byte("more")}})
	for n := range good {
		if entries, ok := decode(good[:n]); ok && len(entries) == 2 {
			t.Errorf("%d of %d bytes are read as the whole", n, len(good))
		}
	}
	for _, bad := range [][]byte{nil, {}, {0}, {version + 1}, []byte("{}"), append([]byte{version}, bytes.Repeat([]byte{0xff}, 20)...), {version, 0, 1, 1, 1, 1, 0}} {
		if entries, ok := decode(bad); ok {
			t.Errorf("%v is read as %v", bad, entries)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(map[string]entry{"a": {1, []byte("memory")}, "b": {2, nil}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, ok := decode(b)
		if !ok {
			return
		}
		again, ok := decode(encode(entries))
		if !ok || len(again) != len(entries) {
			t.Errorf("written and read again: %v, want %v", again, entries)
		}
	})
}

func TestMerge(t *testing.T) {
	now := uint32(at.Unix())
	old := now - uint32(maxAge/time.Second)
	got := merge(map[string]entry{
		"mine": {now - 60, []byte("old")}, "others": {now - 30, []byte("other")}, "moved": {now + 1, []byte("newer")},
		"aged": {old - 1, []byte("x")}, "aging": {old, []byte("y")},
	}, map[string][]byte{"mine": []byte("new"), "moved": []byte("stale"), "fresh": []byte("z")}, at)
	want := map[string]entry{
		"mine": {now, []byte("new")}, "others": {now - 30, []byte("other")}, "moved": {now + 1, []byte("newer")},
		"aging": {old, []byte("y")}, "fresh": {now, []byte("z")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func bucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// TestTwoReplicas makes two replicas write their devices at once, in the same
// partitions, and checks that none is lost.
func TestTwoReplicas(t *testing.T) {
	kv := bucket(t)
	if _, err := kv.PutString(t.Context(), partitionKey+"7", "garbage"); err != nil {
		t.Fatal(err)
	}
	stores := []*Store{}
	want := map[string][]byte{}
	var writers sync.WaitGroup
	for replica := range 2 {
		s := New(func(context.Context) (jetstream.KeyValue, error) { return kv, nil })
		stores = append(stores, s)
		own := map[string][]byte{}
		for i := range 400 {
			own[fmt.Sprintf("r%d-%d", replica, i)] = fmt.Appendf(nil, "%d of %d", i, replica)
		}
		maps.Copy(want, own)
		writers.Go(func() {
			for range 3 {
				if err := s.Save(t.Context(), at, []byte("fleet"), own, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	fleet, devices, err := stores[0].Load(t.Context())
	if err != nil || string(fleet) != "fleet" {
		t.Fatalf("fleet %q, %v", fleet, err)
	}
	if !reflect.DeepEqual(devices, want) {
		t.Errorf("%d devices, want %d", len(devices), len(want))
	}
}

// countedReads counts the reads of keys.
type countedReads struct {
	jetstream.KeyValue
	n atomic.Int64
}

// Get implements [jetstream.KeyValue].
func (c *countedReads) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	c.n.Add(1)
	return c.KeyValue.Get(ctx, key)
}

// TestReads: a partition is read before it is written, unless this replica wrote it
// last, with the same devices and no others. Nothing that another replica wrote, and
// no device that is another's now, is lost.
func TestReads(t *testing.T) {
	kv := &countedReads{KeyValue: bucket(t)}
	open := func(context.Context) (jetstream.KeyValue, error) { return kv, nil }
	mine, other := New(open), New(open)
	same := func(token string) string { // another device of the same partition
		for i := 0; ; i++ {
			if next := fmt.Sprint(token, "-", i); partitionOf(next) == partitionOf(token) {
				return next
			}
		}
	}
	a := "a"
	b, c := same(a), same(same(a))
	for i, step := range []struct {
		by    *Store
		own   []string
		reads int64
	}{
		{mine, []string{a, b}, 1},
		{mine, []string{a, b}, 0},
		{mine, []string{a}, 1},
		{mine, []string{a}, 1}, // b stays stored
		{mine, []string{a, b}, 1},
		{mine, []string{a, b}, 0},
		{other, []string{c}, 1},
		{mine, []string{a, b}, 1}, // the write without a read fails
		{mine, []string{a, b}, 1},
	} {
		before := kv.n.Load()
		own := map[string][]byte{}
		for _, token := range step.own {
			own[token] = fmt.Append(nil, token, i)
		}
		if err := step.by.Save(t.Context(), at, nil, own, 0); err != nil {
			t.Fatal(err)
		}
		if got := kv.n.Load() - before; got != step.reads {
			t.Errorf("step %d: %d reads, want %d", i, got, step.reads)
		}
	}
	_, devices, err := mine.Load(t.Context())
	if want := map[string][]byte{a: []byte(a + "8"), b: []byte(b + "8"), c: []byte(c + "6")}; err != nil || !reflect.DeepEqual(devices, want) {
		t.Errorf("got %q, %v, want %q", devices, err, want)
	}
}

// TestPartitions checks that devices are spread and that the layout does not change
// between versions.
func TestPartitions(t *testing.T) {
	seen := map[int]int{}
	for i := range 100_000 {
		seen[partitionOf(fmt.Sprint("truck-", i))]++
	}
	counts := slices.Sorted(maps.Values(seen))
	if len(seen) != partitions || counts[0] < 200 || counts[len(counts)-1] > 600 {
		t.Errorf("%d partitions with %d to %d devices", len(seen), counts[0], counts[len(counts)-1])
	}
	if got := partitionOf("truck-7"); got != 88 {
		t.Errorf("partition of truck-7 is %d, it was 88", got)
	}
}

func TestEnds(t *testing.T) {
	kv := bucket(t)
	s := New(func(context.Context) (jetstream.KeyValue, error) { return kv, nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, at, nil, map[string][]byte{"a": {1}, "b": {2}}, time.Hour); err == nil {
		t.Error("saved although the context is cancelled")
	}
	if _, _, err := s.Load(ctx); err == nil {
		t.Error("loaded although the context is cancelled")
	}
}
