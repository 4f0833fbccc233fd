package outbound

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/publisher/natstest"
)

// shelf is a [Memory] in memory.
type shelf struct {
	mu      sync.Mutex
	fleet   []byte
	devices map[string][]byte
	err     error
	reads   int
}

func (s *shelf) Load(context.Context) ([]byte, map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.fleet, s.devices, s.err
}

func (s *shelf) Save(_ context.Context, _ time.Time, fleet []byte, devices map[string][]byte, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet, s.devices = fleet, devices
	return s.err
}

func adaptiveSchedule() *schedule.Schedule {
	return schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: 20 * time.Millisecond, Seed: 1})
}

// TestMemory stops a pool and starts another one with its memory: a device that
// comes with a memory does not queue for a first poll, neither at a start nor when it
// is taken over later.
func TestMemory(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := &shelf{}
	with := func(_ *rig, p *Parts) { p.Schedule, p.Memory = adaptiveSchedule(), s }
	api := newFakeAPI("a", "b")
	api.show("a", at(0, 1))
	api.show("b", at(0, 1))
	r := newRigWith(t, srv, api, api, options(), with)
	natstest.Eventually(t, "both were polled", func() bool { return r.polled("a") > 3 && r.polled("b") > 3 })
	r.stop()
	if len(s.devices) != 2 || len(s.fleet) == 0 {
		t.Fatalf("stored: %d devices, %d bytes of the fleet", len(s.devices), len(s.fleet))
	}

	var next *rig
	held := make(chan struct{})
	next = newRigWith(t, srv, api, api, options(), func(r *rig, p *Parts) {
		with(r, p)
		r.share.idle = func() bool { // no polls until the test has looked
			select {
			case <-held:
				return false
			default:
				return true
			}
		}
		only := func(token string) bool { return token == "a" }
		r.share.owns.Store(&only)
	})
	natstest.Eventually(t, "one device is here", func() bool { return next.pool.Owned() == 1 })
	if why := next.why("a").Reason; why == schedule.ReasonFirst.String() {
		t.Errorf("a device with a memory waits for its %s poll", why)
	}
	next.own(func(string) bool { return true })
	natstest.Eventually(t, "the other one is taken over", func() bool {
		return next.pool.Owned() == 2 && next.pool.NotReady() == "" && next.why("b").Reason != schedule.ReasonFirst.String()
	})
	was := next.polled("b")
	close(held)
	natstest.Eventually(t, "it is polled", func() bool { return next.polled("b") > was })
}

// TestNoMemory checks that a store that fails costs nothing but the memory.
func TestNoMemory(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*shelf{
		"away":    {err: errors.New("away")},
		"garbage": {fleet: []byte("x"), devices: map[string][]byte{"a": []byte("garbage"), "": {}}},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI("a")
			api.show("a", at(0, 1))
			r := newRigWith(t, natstest.Start(t), api, api, options(), func(_ *rig, p *Parts) { p.Schedule, p.Memory = adaptiveSchedule(), s })
			natstest.Eventually(t, "it is polled", func() bool { return r.polled("a") > 3 })
			r.stop()
		})
	}
}
