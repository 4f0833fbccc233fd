package memory

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/tick"
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
}

// New returns a store in the bucket that open returns.
func New(open func(ctx context.Context) (jetstream.KeyValue, error)) *Store { return &Store{open} }

// Load reads the memory of the fleet and of all devices, by token.
func (s *Store) Load(ctx context.Context) (fleet []byte, devices map[string][]byte, err error) {
	// The subscription of a watch ends with its context.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kv, err := s.open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("open bucket: %w", err)
	}
	w, err := kv.WatchFiltered(ctx, []string{prefix + ">"}, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, nil, fmt.Errorf("read bucket: %w", err)
	}
	defer func() { _ = w.Stop() }() // it ends with the context as well
	devices = make(map[string][]byte)
	for {
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("read bucket: %w", context.Cause(ctx))
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil, nil, errors.New("read bucket: the watch ended before the last memory")
			case e == nil:
				return fleet, devices, nil
			case e.Key() == fleetKey:
				fleet = e.Value()
			case strings.HasPrefix(e.Key(), partitionKey):
				entries, _ := decode(e.Value())
				for token, entry := range entries {
					devices[token] = entry.memory
				}
			}
		}
	}
}

// Save writes the memory of the fleet and of this replica's devices, by token, as
// they were at a time. With a pause it writes few partitions at each tick of that
// interval, which bounds the bytes a second; without one it writes many at once. It
// returns the first error, and writes the rest all the same.
func (s *Store) Save(ctx context.Context, at time.Time, fleet []byte, devices map[string][]byte, pause time.Duration) error {
	kv, err := s.open(ctx)
	if err != nil {
		return fmt.Errorf("open bucket: %w", err)
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
		err := savePartition(ctx, kv, n, own, at)
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
func savePartition(ctx context.Context, kv jetstream.KeyValue, n int, own map[string][]byte, at time.Time) (err error) {
	key := partitionKey + strconv.Itoa(n)
	for range tries {
		if err = update(ctx, kv, key, own, at); err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			break
		}
	}
	return fmt.Errorf("write to bucket: %w", err)
}

// update makes one attempt. It fails if another replica writes the key meanwhile.
func update(ctx context.Context, kv jetstream.KeyValue, key string, own map[string][]byte, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		_, err = kv.Create(ctx, key, encode(merge(nil, own, at)))
		return err
	}
	if err != nil {
		return err
	}
	stored, _ := decode(e.Value())
	_, err = kv.Update(ctx, key, encode(merge(stored, own, at)), e.Revision())
	return err
}
