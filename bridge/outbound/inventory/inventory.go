package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/auth/backoff"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// API is the part of the REST API that an inventory reads. Its methods are safe
// for concurrent use.
type API interface {
	Devices(ctx context.Context) (devices []plaspy.Device, skipped []error, err error)
	Groups(ctx context.Context) (groups []plaspy.Group, skipped []error, err error)
	DeviceURL(id string) string
}

// Stream is the part of the publisher that device events need.
type Stream interface {
	Publish(ctx context.Context, events []*publisher.Event, done func(error)) error
	Last(ctx context.Context, subject string) (*publisher.Stored, error)
}

// Fleet polls the devices of the inventory.
type Fleet interface {
	// Ownership returns a function that reports whether this replica polls a
	// device, by its token. ok is false while the state is being read from the
	// stream, which decides which devices are new.
	Ownership() (owns func(token string) bool, ok bool)
	// Follow takes over the devices of the account, in the order of their ids.
	// Devices that are not among them have left.
	Follow(devices []Device)
	// Resync has the state read from the stream, after a fence was refused.
	Resync()
}

// Positions edits the bucket of last positions.
type Positions interface {
	// Remove deletes a device's key, if there is one.
	Remove(ctx context.Context, token string) error
	// Restore puts a deleted key back, with the device's newest location event.
	Restore(ctx context.Context, token string) error
}

// Device is a device of the account.
type Device struct {
	ID, Token, Name string
	Chosen          bool // to be polled, by any replica
}

// Options are the settings of an inventory. The durations are positive.
type Options struct {
	Select         Selection
	Groups         bool          // read the groups even if none is selected
	Refresh        time.Duration // how often the list is read
	MinReread      time.Duration // the least time between readings that are not scheduled; 0 means 5 s
	BackoffInitial time.Duration // after a failure
	BackoffMax     time.Duration
	Down           func() bool // whether the API is down; optional
	Subjects       publisher.Subjects
	Positions      Positions     // nil means the bucket is left alone
	Conflict       func()        // called for each refused fence
	Trace          *trace.Tracer // nil means no traces
	Log            *slog.Logger
}

// State describes the last reading of the device list.
type State struct {
	Read    bool      // a list was read since the start
	At      time.Time // when
	Listed  int       // devices of the account
	Devices int       // chosen to be polled
	Err     string    // why the last reading failed, or ""
}

// Inventory keeps the account's devices. It is safe for concurrent use.
type Inventory struct {
	api    API
	stream Stream
	fleet  Fleet
	opts   Options
	log    *slog.Logger

	state    atomic.Pointer[State]
	groups   atomic.Pointer[map[string][]string] // ids of groups by token; nil means not read
	again    chan struct{}                       // capacity 1: compare with the stream again
	tasks    tasks
	reported reported // owned by Run

	chosen    atomic.Pointer[patterns]            // for Run to apply; nil means nothing new
	useGroups atomic.Bool                         // the members of all groups are wanted
	members   atomic.Pointer[map[string][]string] // ids and names of groups by token; nil means not read
	hurry     atomic.Bool                         // Run should read the list at once

	mu  sync.Mutex
	dir *directory
}

// New makes an inventory. Its fleet is called by [Inventory.Run] only.
func New(o Options, api API, stream Stream, fleet Fleet) *Inventory {
	v := &Inventory{
		api: api, stream: stream, fleet: fleet, opts: o, log: o.Log,
		again: make(chan struct{}, 1), dir: newDirectory(o.Select),
	}
	v.state.Store(&State{})
	return v
}

// minReread is the default of Options.MinReread.
const minReread = 5 * time.Second

// notLoaded is how long Run waits before it asks again whether the state has been
// read from the stream.
const notLoaded = 50 * time.Millisecond

// Run reads the list at start and once per refresh until ctx ends, and after a
// failure again with a growing delay. It publishes under work, and returns when
// its goroutines have ended.
func (v *Inventory) Run(ctx, work context.Context) {
	defer v.tasks.wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var refresh, next time.Time // the next scheduled reading; the next reading
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-v.again:
		}
		owns, ok := v.fleet.Ownership()
		if !ok {
			timer.Reset(notLoaded)
			continue
		}
		v.rechoose()
		hurry := v.hurry.Swap(false)
		if now := time.Now(); now.Before(next) && !hurry {
			if v.State().Read && v.publish(ctx, work, owns) && failures == 0 {
				next = minTime(next, v.State().At.Add(cmp.Or(v.opts.MinReread, minReread)))
			}
			timer.Reset(max(time.Until(next), 0))
			continue
		}
		err := v.read(ctx, work, owns, !time.Now().Before(refresh))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			next = time.Now().Add(v.failed(err, backoff.Delay(v.opts.BackoffInitial, v.longest(), failures)))
			failures++
			timer.Reset(time.Until(next))
			continue
		}
		if failures > 0 {
			v.log.Info("device list is readable again", "count", failures)
			failures = 0
		}
		if now := time.Now(); !now.Before(refresh) {
			refresh = now.Add(v.opts.Refresh)
		}
		next = refresh
		timer.Reset(time.Until(next))
	}
}

// Image is one device as the stream holds it.
type Image struct {
	ID    string
	Event Event // the newest device event
	Met   bool  // something of the device is or was in the stream
}

// Load takes the state of the stream over, by token.
func (v *Inventory) Load(all iter.Seq2[string, Image]) {
	images := maps.Collect(all)
	v.mu.Lock()
	v.dir.load(images)
	v.mu.Unlock()
	v.Compare()
}

// Compare has the list at hand compared with the stream's device events again,
// because the state was read or this replica polls other devices. It does not
// block.
func (v *Inventory) Compare() {
	select {
	case v.again <- struct{}{}:
	default:
	}
}

// State returns how the last reading of the list went.
func (v *Inventory) State() State { return *v.state.Load() }

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// longest returns the longest delay after a failure: the refresh, unless the API is
// down. Then a short refresh must not ask more often than the polls' probes do.
func (v *Inventory) longest() time.Duration {
	if v.opts.Down != nil && v.opts.Down() {
		return v.opts.BackoffMax
	}
	return min(v.opts.BackoffMax, v.opts.Refresh)
}

// failed notes that the list could not be read, and returns the delay before the
// next attempt.
func (v *Inventory) failed(err error, delay time.Duration) time.Duration {
	state := v.State()
	if text := err.Error(); text != state.Err {
		v.log.Warn("could not read the device list, retrying", "err", err)
		state.Err = text
		v.state.Store(&state)
	}
	if e, ok := errors.AsType[*plaspy.Error](err); ok {
		delay = max(delay, e.RetryAfter)
	}
	return delay
}

// read reads the list once, hands it to the fleet and publishes its changes.
func (v *Inventory) read(ctx, work context.Context, owns func(string) bool, scheduled bool) (err error) {
	ctx, span := v.opts.Trace.List(ctx)
	defer func() { endList(span, err) }()
	devices, skipped, err := v.api.Devices(ctx)
	if err != nil {
		return fmt.Errorf("read device list: %w", err)
	}
	groups, known, err := v.readGroups(ctx)
	if err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	list, left := usable(time.Now(), devices)
	if known && v.opts.Groups {
		v.keepGroups(list, groups)
	}
	if known && v.useGroups.Load() {
		v.keepMembers(groups)
	}
	members, unknown := v.opts.Select.members(groups)
	v.mu.Lock()
	v.dir.update(list, members, scheduled)
	counts, fleet := v.dir.list, v.dir.fleet()
	v.mu.Unlock()

	v.report(list, left, skipped, unknown)
	v.reportDoubt(counts)
	if state := v.State(); !state.Read || state.Devices != counts.chosen {
		v.log.Info("device list read", "devices", counts.chosen, "listed", counts.listed)
	}
	v.state.Store(&State{Read: true, At: time.Now(), Listed: counts.listed, Devices: counts.chosen})
	// A device's addition is on its way before its first location can be.
	v.announce(ctx, span.In(work), owns)
	v.fleet.Follow(fleet)
	if scheduled {
		v.sweep(ctx, owns)
	}
	return nil
}
