package replica

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errCut is the error of a closed connection.
var errCut = errors.New("connection closed")

// model is the replicas' bucket without a server, for simulated time: revisions
// count up over all keys, and the test decides which writes are lost, late or rolled
// back.
type model struct {
	mu      sync.Mutex
	exists  bool
	seq     uint64
	entries map[string]kvEntry
	watches map[*modelWatch]bool
	random  *rand.Rand
}

func newModel(seed uint64) *model {
	return &model{entries: map[string]kvEntry{}, watches: map[*modelWatch]bool{}, random: rand.New(rand.NewPCG(seed, 1))}
}

type kvEntry struct {
	jetstream.KeyValueEntry // nil: the methods that are not needed

	key      string
	value    []byte
	revision uint64
	op       jetstream.KeyValueOp
	created  time.Time
}

func (e kvEntry) Key() string                     { return e.key }
func (e kvEntry) Value() []byte                   { return e.value }
func (e kvEntry) Revision() uint64                { return e.revision }
func (e kvEntry) Operation() jetstream.KeyValueOp { return e.op }
func (e kvEntry) Created() time.Time              { return e.created }
func (m *model) chance(percent int) bool          { return m.random.IntN(100) < percent }
func (m *model) upTo(d time.Duration) (some time.Duration) {
	return time.Duration(m.random.Int64N(int64(d) + 1))
}

// store is the state that can be gone back to.
type store struct {
	exists  bool
	seq     uint64
	entries map[string]kvEntry
}

func (m *model) copied() store {
	m.mu.Lock()
	defer m.mu.Unlock()
	return store{m.exists, m.seq, maps.Clone(m.entries)}
}

// restore brings the bucket back as it was, as a server does that is started on
// a copy of its store; its consumers are gone.
func (m *model) restore(s store) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exists, m.seq, m.entries = s.exists, s.seq, maps.Clone(s.entries)
	clear(m.watches)
}

// write puts an entry in, and shows it to all watches. m.mu is held.
func (m *model) write(key string, value []byte, op jetstream.KeyValueOp) uint64 {
	m.seq++
	e := kvEntry{key: key, value: value, revision: m.seq, op: op, created: time.Now()}
	m.entries[key] = e
	for w := range m.watches {
		w.show(e)
	}
	return m.seq
}

// set writes a value as another client may.
func (m *model) set(key string, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exists {
		m.write(key, []byte(value), jetstream.KeyValuePut)
	}
}

// keys are those that hold something.
func (m *model) keys(prefix string) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) && e.op == jetstream.KeyValuePut {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// line is one replica's connection to the model.
type line struct {
	jetstream.JetStream // nil: the methods that are not needed

	m *model
	// Guarded by the model's mutex.
	cut   bool // closed for good
	shut  bool // nothing passes, and nothing fails
	lossy int  // percent of answers that are lost
}

// pass waits for a message's way in one direction.
func (l *line) pass(ctx context.Context) error {
	l.m.mu.Lock()
	wait := l.m.upTo(20 * time.Millisecond)
	if l.m.chance(2) {
		wait = l.m.upTo(time.Second)
	}
	l.m.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		l.m.mu.Lock()
		cut, shut := l.cut, l.shut
		l.m.mu.Unlock()
		switch {
		case cut:
			return errCut
		case !shut:
			return nil
		}
		wait = 50 * time.Millisecond
	}
}

// ask does one request: on its way there and back it may be late or lost. It may
// be carried out although its answer is lost.
func (l *line) ask(ctx context.Context, do func() error) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	l.m.mu.Lock()
	err := do()
	lost := l.m.chance(l.lossy)
	l.m.mu.Unlock()
	if lost {
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.Join(l.pass(ctx), err)
}

func (l *line) KeyValue(ctx context.Context, _ string) (jetstream.KeyValue, error) {
	err := l.ask(ctx, func() error {
		if !l.m.exists {
			return jetstream.ErrBucketNotFound
		}
		return nil
	})
	return &modelKV{line: l}, err
}

func (l *line) CreateKeyValue(ctx context.Context, _ jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	err := l.ask(ctx, func() error {
		if l.m.exists {
			return jetstream.ErrBucketExists
		}
		l.m.exists = true
		return nil
	})
	return &modelKV{line: l}, err
}

// modelKV is the bucket as one replica has it.
type modelKV struct {
	jetstream.KeyValue // nil: the methods that are not needed

	line *line
}

// put writes if the key's revision is as expected: 0 stands for a missing or a
// deleted key.
func (kv *modelKV) put(ctx context.Context, key string, value []byte, expected func(kvEntry) bool) (revision uint64, err error) {
	m := kv.line.m
	err = kv.line.ask(ctx, func() error {
		if !m.exists {
			return jetstream.ErrNoStreamResponse
		}
		if !expected(m.entries[key]) {
			return jetstream.ErrKeyRevisionMismatch
		}
		revision = m.write(key, value, jetstream.KeyValuePut)
		return nil
	})
	return revision, err
}

func (kv *modelKV) Create(ctx context.Context, key string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return kv.put(ctx, key, value, func(e kvEntry) bool { return e.revision == 0 || e.op != jetstream.KeyValuePut })
}

func (kv *modelKV) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return kv.put(ctx, key, value, func(e kvEntry) bool { return e.revision == revision })
}

func (kv *modelKV) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return kv.put(ctx, key, value, func(kvEntry) bool { return true })
}

func (kv *modelKV) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	var e kvEntry
	err := kv.line.ask(ctx, func() error {
		if e = kv.line.m.entries[key]; e.revision == 0 || e.op != jetstream.KeyValuePut {
			return jetstream.ErrKeyNotFound
		}
		return nil
	})
	return e, err
}

// Delete is called for keys of replicas that left, at the revision that said so. The
// revision cannot be read from the option, so Delete requires that the key says so now.
func (kv *modelKV) Delete(ctx context.Context, key string, _ ...jetstream.KVDeleteOpt) error {
	m := kv.line.m
	return kv.line.ask(ctx, func() error {
		if !m.exists || !strings.Contains(string(m.entries[key].value), `"left":true`) {
			return jetstream.ErrKeyRevisionMismatch
		}
		m.write(key, nil, jetstream.KeyValueDelete)
		return nil
	})
}

func (kv *modelKV) Watch(ctx context.Context, _ string, _ ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	m := kv.line.m
	w := &modelWatch{line: kv.line, updates: make(chan jetstream.KeyValueEntry), more: make(chan struct{}, 1)}
	w.life, w.end = context.WithCancel(ctx)
	err := kv.line.ask(ctx, func() error {
		if !m.exists {
			return jetstream.ErrStreamNotFound
		}
		for _, e := range slices.SortedFunc(maps.Values(m.entries), func(a, b kvEntry) int { return int(a.revision) - int(b.revision) }) {
			w.show(e)
		}
		w.show(nil)
		m.watches[w] = true
		return nil
	})
	if err != nil {
		w.end()
		return nil, err
	}
	go w.deliver()
	return w, nil
}

// modelWatch shows the bucket's entries in order, and late.
type modelWatch struct {
	line    *line
	updates chan jetstream.KeyValueEntry
	life    context.Context
	end     context.CancelFunc
	more    chan struct{}
	queue   []jetstream.KeyValueEntry // guarded by the model's mutex
}

// show queues an entry. The model's mutex is held.
func (w *modelWatch) show(e jetstream.KeyValueEntry) {
	w.queue = append(w.queue, e)
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *modelWatch) deliver() {
	defer close(w.updates)
	m := w.line.m
	for {
		select {
		case <-w.more:
		case <-w.life.Done():
			return
		}
		if w.line.pass(w.life) != nil {
			return
		}
		m.mu.Lock()
		batch := w.queue
		w.queue = nil
		m.mu.Unlock()
		for _, e := range batch {
			select {
			case w.updates <- e:
			case <-w.life.Done():
				return
			}
		}
	}
}

func (w *modelWatch) Updates() <-chan jetstream.KeyValueEntry { return w.updates }
func (w *modelWatch) Context() context.Context                { return w.life }
func (w *modelWatch) Error() <-chan error                     { return nil }

func (w *modelWatch) Stop() error {
	w.end()
	w.line.m.mu.Lock()
	defer w.line.m.mu.Unlock()
	delete(w.line.m.watches, w)
	return nil
}
