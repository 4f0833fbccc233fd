package memory

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/tick"
	"plaspy-bridge/publisher"
)

const (
	// prefix begins the keys. Replicas watch other keys of the bucket, and do not
	// receive these.
	prefix       = "schedule."
	fleetKey     = prefix + "fleet"
	partitionKey = prefix + "p"
	// callTimeout limits one read or write.
	callTimeout = 2 * time.Second
	// together is the number of partitions that are written at once if there is no
	// pause between them.
	together = 16
	// eachTick is the number if there is one.
	eachTick = 2
	// tries limits the attempts to write a partition that other replicas write too.
	tries = 5
)

// Store reads and writes memories.
type Store struct {
	open func(ctx context.Context) (jetstream.KeyValue, error)
	seed maphash.Seed

	mu   sync.Mutex
	sole map[int]sole // by partition; guarded by mu
}

// sole is a partition without entries of other replicas, as this one wrote it last.
type sole struct {
	revision uint64
	devices  uint64 // the sum of the hashes of their tokens
}

// New returns a store in the bucket that open returns.
func New(open func(ctx context.Context) (jetstream.KeyValue, error)) *Store {
	return &Store{open: open, seed: maphash.MakeSeed(), sole: make(map[int]sole)}
}

// Load reads the memory of the fleet and of all devices, by token.
func (s *Store) Load(ctx context.Context) (fleet []byte, devices map[string][]byte, err error) {
	kv, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	devices = make(map[string][]byte)
	err = publisher.ReadBucket(ctx, kv, prefix+">", func(e jetstream.KeyValueEntry) {
		switch {
		case e.Key() == fleetKey:
			fleet = e.Value()
		case strings.HasPrefix(e.Key(), partitionKey):
			entries, _ := decode(e.Value())
			for token, entry := range entries {
				devices[token] = entry.memory
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return fleet, devices, nil
}

// Save writes the memory of the fleet and of this replica's devices, by token, as
// they were at a time. With a pause it writes few partitions at each tick of that
// interval, which bounds the bytes a second; without one it writes many at once. It
// returns the first error, and writes the rest nevertheless.
func (s *Store) Save(ctx context.Context, at time.Time, fleet []byte, devices map[string][]byte, pause time.Duration) error {
	kv, err := s.open(ctx)
	if err != nil {
		return err
	}
	if len(fleet) > 0 {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err = kv.Put(call, fleetKey, fleet)
		cancel()
		if err != nil {
			return fmt.Errorf("write to bucket: %w", err)
		}
	}
	parts := make(map[int]map[string][]byte)
	for token, memory := range devices {
		n := partitionOf(token)
		if parts[n] == nil {
			parts[n] = make(map[string][]byte)
		}
		parts[n][token] = memory
	}
	slots := together
	if pause > 0 {
		slots = eachTick
	}
	return each(ctx, parts, slots, func(n int, own map[string][]byte) error {
		err := s.savePartition(ctx, kv, n, own, at)
		if pause > 0 {
			timer := tick.NewTimer(tick.Until(time.Now(), pause))
			defer timer.Stop()
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		return err
	})
}

// each calls f with the partitions, several at once, until ctx is cancelled. It
// returns the first error.
func each(ctx context.Context, parts map[int]map[string][]byte, slots int, f func(int, map[string][]byte) error) (first error) {
	free := make(chan struct{}, slots)
	var once sync.Once
	var wg sync.WaitGroup
	defer wg.Wait()
	for n, own := range parts {
		select {
		case <-ctx.Done():
			wg.Wait()
			once.Do(func() { first = context.Cause(ctx) })
			return first
		case free <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-free }()
			if err := f(n, own); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}

// savePartition merges memories into a partition.
func (s *Store) savePartition(ctx context.Context, kv jetstream.KeyValue, n int, own map[string][]byte, at time.Time) (err error) {
	for range tries {
		if err = s.update(ctx, kv, n, own, at); err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			break
		}
	}
	return fmt.Errorf("write to bucket: %w", err)
}

// update makes one attempt. It fails if another replica writes the key meanwhile. A
// partition that has the same devices as this replica last wrote need not be read.
func (s *Store) update(ctx context.Context, kv jetstream.KeyValue, n int, own map[string][]byte, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	last, devices := s.forget(n), s.sum(own)
	var stored map[string]entry
	if last.revision == 0 || last.devices != devices {
		var err error
		if last.revision, stored, err = read(ctx, kv, n); err != nil {
			return err
		}
	}
	merged := merge(stored, own, at)
	revision, err := write(ctx, kv, n, encode(merged), last.revision)
	if err != nil {
		return err
	}
	if len(merged) == len(own) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sole[n] = sole{revision, devices}
	}
	return nil
}

// forget returns the state of a partition if it is known, and forgets it.
func (s *Store) forget(n int) sole {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.sole[n]
	delete(s.sole, n)
	return last
}

// sum identifies a set of devices.
func (s *Store) sum(devices map[string][]byte) (sum uint64) {
	for token := range devices {
		sum += maphash.String(s.seed, token)
	}
	return sum
}

// read returns a partition and its revision, which is 0 if there is none.
func read(ctx context.Context, kv jetstream.KeyValue, n int) (uint64, map[string]entry, error) {
	e, err := kv.Get(ctx, keyOf(n))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	stored, _ := decode(e.Value())
	return e.Revision(), stored, nil
}

// write replaces a revision of a partition. It creates the key for revision 0.
func write(ctx context.Context, kv jetstream.KeyValue, n int, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return kv.Create(ctx, keyOf(n), value)
	}
	return kv.Update(ctx, keyOf(n), value, revision)
}

// keyOf returns the key of a partition.
func keyOf(n int) string { return partitionKey + strconv.Itoa(n) }
