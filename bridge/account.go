package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// The least time between two readings of the device list that confirm that a device
// is gone: a fixed one, and a multiple of the time that the last reading took. The
// second one spares a small request budget and a large list.
const (
	rereadDevices = 10 * time.Second
	rereadShare   = 10
)

// deviceLister reads the account's devices. [plaspy.Client] is the real one.
type deviceLister interface {
	Devices(ctx context.Context) (devices []plaspy.Device, skipped []error, err error)
}

// accountDevices reports whether the account has a device. The list that it looks at
// is read after the first call for that device; concurrent calls share one reading. It
// is safe for concurrent use.
type accountDevices struct {
	api deviceLister

	turn    chan struct{} // holds one value while the fields below are in use
	begun   time.Time     // when the last reading began
	took    time.Duration // how long the last reading took
	ids     map[string]struct{}
	err     error
	refused map[string]struct{} // devices that were refused since the last reading began
	waited  map[string]struct{} // devices that were refused before the last reading
}

func newAccountDevices(api deviceLister) *accountDevices {
	return &accountDevices{api: api, turn: make(chan struct{}, 1), refused: map[string]struct{}{}}
}

var errNotReread = errors.New("the device list was read a moment ago")

// Has reports whether the API's list has a device. It returns an error for an empty
// list, which is not trusted. It blocks while the list is read. If the list was read a
// moment ago, it returns an error once, and answers from the next reading: without
// this, many devices that ask often would take every reading from one that asks rarely.
func (d *accountDevices) Has(ctx context.Context, deviceID string) (bool, error) {
	asked := time.Now()
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if d.begun.Before(asked) {
		switch _, waited := d.waited[deviceID]; {
		case d.begun.IsZero() || time.Since(d.begun) >= max(rereadDevices, rereadShare*d.took):
			d.begun, d.waited, d.refused = time.Now(), d.refused, map[string]struct{}{}
			d.ids, d.err = d.read(ctx)
			d.took = time.Since(d.begun)
		case waited:
			delete(d.waited, deviceID)
		default:
			d.refused[deviceID] = struct{}{}
			return false, errNotReread
		}
	}
	if d.err != nil {
		return false, d.err
	}
	_, there := d.ids[deviceID]
	return there, nil
}

func (d *accountDevices) read(ctx context.Context) (map[string]struct{}, error) {
	list, _, err := d.api.Devices(ctx)
	if err != nil {
		return nil, fmt.Errorf("read device list: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("read device list: it is empty")
	}
	ids := make(map[string]struct{}, len(list))
	for i := range list {
		ids[list[i].ID] = struct{}{}
	}
	return ids, nil
}
