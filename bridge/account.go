package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// rereadDevices is the least time between two readings of the device list that
// confirm that a device is gone.
const rereadDevices = time.Minute

// deviceLister reads the account's devices. [plaspy.Client] is the real one.
type deviceLister interface {
	Devices(ctx context.Context) (devices []plaspy.Device, skipped []error, err error)
}

// accountDevices reports whether the account has a device. It reads the device list
// for each call; concurrent calls share one reading. It is safe for concurrent use.
type accountDevices struct {
	api deviceLister

	turn  chan struct{} // holds one value while the fields below are in use
	begun time.Time     // when the last reading began
	ids   map[string]struct{}
	err   error
}

func newAccountDevices(api deviceLister) *accountDevices {
	return &accountDevices{api: api, turn: make(chan struct{}, 1)}
}

var errNotReread = errors.New("the device list was read less than a minute ago")

// Has reports whether the API's list has a device. It returns an error for an empty
// list, which is not trusted. It blocks while the list is read.
func (d *accountDevices) Has(ctx context.Context, deviceID string) (bool, error) {
	asked := time.Now()
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if d.begun.Before(asked) {
		if !d.begun.IsZero() && time.Since(d.begun) < rereadDevices {
			return false, errNotReread
		}
		d.begun = time.Now()
		d.ids, d.err = d.read(ctx)
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
