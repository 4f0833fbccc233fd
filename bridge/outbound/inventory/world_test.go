package inventory

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
)

// world is an account, a stream and a fleet in memory.
type world struct {
	mu      sync.Mutex
	list    []plaspy.Device
	groups  []plaspy.Group
	noGroup error // why the groups cannot be read
	listErr error
	reads   int
	refuse  func(e *publisher.Event) error // why the stream does not take an event
	lookup  func(ctx context.Context)      // runs before each look-up in the stream
	hang    bool                           // the stream never answers
	tries   []string                       // subjects of all events that were sent
	stored  []string                       // "change device", in order
	fleet   []Device
	resyncs int
	loading bool
	foreign map[string]bool // tokens of devices that another replica polls
	keys    []string        // edits of the bucket of last positions
	log     bytes.Buffer
}

// positions is the bucket of last positions of a world.
type positions struct{ *world }

func (p positions) Remove(_ context.Context, token string) error {
	p.set(func() { p.keys = append(p.keys, "remove "+token) })
	return nil
}

func (p positions) Restore(_ context.Context, token string) error {
	p.set(func() { p.keys = append(p.keys, "restore "+token) })
	return nil
}

func (w *world) Devices(context.Context) ([]plaspy.Device, []error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	return w.list, nil, w.listErr
}

func (w *world) Groups(context.Context) ([]plaspy.Group, []error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.groups, nil, w.noGroup
}

func (*world) DeviceURL(id string) string { return "https://api.test/api/devices/" + id }

func (w *world) Publish(_ context.Context, events []*publisher.Event, done func(error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := events[0]
	w.tries = append(w.tries, e.Subject)
	if w.hang {
		return nil
	}
	var err error
	if w.refuse != nil {
		err = w.refuse(e)
	}
	if err == nil {
		e.Seq = uint64(len(w.tries))
		w.stored = append(w.stored, strings.TrimPrefix(e.Subject, "plaspy.device."))
	}
	go done(err)
	return nil
}

func (w *world) Last(ctx context.Context, _ string) (*publisher.Stored, error) {
	if w.lookup != nil {
		w.lookup(ctx)
	}
	return nil, nil
}

func (w *world) Ownership() (func(string) bool, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	foreign := maps.Clone(w.foreign)
	return func(token string) bool { return !foreign[token] }, !w.loading
}

func (w *world) Follow(devices []Device) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fleet = devices
}

func (w *world) Resync() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resyncs++
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// count returns how many of the events that were sent have a subject.
func (w *world) count(subject string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.tries {
		if s == subject {
			n++
		}
	}
	return n
}

const refresh = 5 * time.Minute

// run starts an inventory in the bubble; it stops with the test.
func (w *world) run(t *testing.T, sel Selection) *Inventory {
	t.Helper()
	return w.start(t, Options{Select: sel})
}

func (w *world) start(t *testing.T, o Options) *Inventory {
	t.Helper()
	v := New(Options{
		Select: o.Select, Groups: o.Groups, Refresh: cmp.Or(o.Refresh, refresh), Down: o.Down, BackoffInitial: time.Second, BackoffMax: time.Minute, Subjects: "plaspy", Positions: positions{w}, Conflict: func() {},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}, w, w, w)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx, ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return v
}

// pass lets fake time go by. The lock orders the test's reads with the writes of
// other goroutines for the race detector.
func (w *world) pass(d time.Duration) {
	w.set(func() {})
	time.Sleep(d)
	synctest.Wait()
	w.set(func() {})
}

// held returns the content of a stream: an added event of each device.
func held(ids ...string) iter.Seq2[string, Image] {
	return func(yield func(string, Image) bool) {
		for _, id := range ids {
			event := &publisher.Stored{Seq: 1, Body: []byte(`{"deviceId":"` + id + `","change":"added","device":{"id":"` + id + `"}}`)}
			if !yield(id, Image{ID: id, Event: ReadEvent(event), Met: true}) {
				return
			}
		}
	}
}
