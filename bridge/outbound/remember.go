package outbound

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	// rememberEvery is the time between two writes of the schedule's memory.
	rememberEvery = time.Minute
	// rememberPause is the pause after each of the 256 partitions: 100,000 devices
	// take 40 s, at some 200 kB a second.
	rememberPause = 150 * time.Millisecond
	// recallPatience limits how long the memory may delay the first polls.
	recallPatience = time.Second
	// lastPatience limits how long the memory may delay a stop.
	lastPatience = time.Second
)

// Memory keeps the schedule's knowledge about devices, by token.
type Memory interface {
	Load(ctx context.Context) (fleet []byte, devices map[string][]byte, err error)
	Save(ctx context.Context, at time.Time, fleet []byte, devices map[string][]byte, pause time.Duration) error
}

// remembering keeps the schedule's memory.
type remembering struct {
	store Memory // nil means that there is none
	fleet *fleet
	log   *slog.Logger
}

// recollection is what the fleet does with the schedule's memory.
type recollection struct {
	fleet   bool              // that of the fleet was taken over, or there was none
	listed  bool              // the devices have been listed
	devices map[string][]byte // until they are listed, by token
}

// recall reads the memory beside the state, for devices that were not polled yet. The
// function that it returns takes the memory over if it is to be used. A failure costs
// no more than the knowledge.
func (m *remembering) recall(ctx context.Context) (finish func(use bool)) {
	if m.store == nil || !m.fleet.forgetful() {
		return func(bool) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan struct{})
	var fleet []byte
	var devices map[string][]byte
	var err error
	go func() {
		defer close(read)
		fleet, devices, err = m.store.Load(ctx)
	}()
	return func(use bool) {
		defer cancel()
		if !use {
			cancel()
		}
		timer := time.AfterFunc(recallPatience, cancel)
		defer timer.Stop()
		<-read
		if !use {
			return
		}
		if err != nil {
			m.log.Info("the schedule's memory is not read, devices are learnt anew", "err", err)
			return
		}
		n := m.fleet.recall(fleet, devices)
		m.log.Info("the schedule's memory is read", "devices", len(devices), "restored", n)
	}
}

// forgetful reports whether a memory may be of use.
func (f *fleet) forgetful() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.memory.fleet || !f.memory.listed {
		return true
	}
	for _, d := range f.byID {
		if d.first && !d.terms.paused {
			return true
		}
	}
	return false
}

// recall takes memories over for the devices that were not polled yet. Those of
// devices that are not listed yet are kept until then. It returns the number of
// devices that were restored now.
func (f *fleet) recall(fleet []byte, devices map[string][]byte) (n int) {
	f.mu.Lock()
	if !f.memory.fleet {
		f.memory.fleet = true
		f.policy.RestoreFleet(fleet)
	}
	if !f.memory.listed {
		f.memory.devices = devices
	}
	list := make([]*device, 0, len(f.byID))
	for _, d := range f.byID {
		if d.first && !d.terms.paused && devices[d.token] != nil {
			list = append(list, d)
		}
	}
	f.mu.Unlock()
	for part := range slices.Chunk(list, chunk) {
		now := time.Now()
		f.mu.Lock()
		for _, d := range part {
			if d.active && d.first && !d.terms.paused && f.policy.Restore(now, d.id, devices[d.token]) {
				n++
			}
		}
		f.mu.Unlock()
	}
	return n
}

// remember returns the memory of the fleet, and of its devices by token.
func (f *fleet) remember() (fleet []byte, devices map[string][]byte) {
	f.mu.Lock()
	fleet = f.policy.AppendFleetMemory(nil)
	list := make([]*device, 0, len(f.byID))
	for _, d := range f.byID {
		list = append(list, d)
	}
	f.mu.Unlock()
	devices = make(map[string][]byte, len(list))
	for part := range slices.Chunk(list, chunk) {
		f.mu.Lock()
		for _, d := range part {
			memory := d.terms.memory // of a device that is paused
			if memory == nil && d.active {
				memory = f.policy.AppendMemory(nil, d.id)
			}
			if len(memory) > 0 {
				devices[d.token] = memory
			}
		}
		f.mu.Unlock()
	}
	return fleet, devices
}

// keep writes the schedule's memory once a minute until ctx is cancelled.
func (m *remembering) keep(ctx context.Context) {
	if m.store == nil {
		return
	}
	every(ctx, rememberEvery, func() { m.save(ctx, rememberPause) })
}

// last writes the schedule's memory at a stop.
func (m *remembering) last(grace time.Duration) {
	if m.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(lastPatience, grace/2))
	defer cancel()
	m.save(ctx, 0)
}

func (m *remembering) save(ctx context.Context, pause time.Duration) {
	now := time.Now()
	fleet, devices := m.fleet.remember()
	if len(devices) == 0 {
		return
	}
	if err := m.store.Save(ctx, now, fleet, devices, pause); err != nil && ctx.Err() == nil {
		m.log.Debug("the schedule's memory is not stored", "err", err)
	}
}
