// Package widespread notices that every poll fails whichever device it is of, although the
// API answers: its answers cannot be used. It reads the clock and logs, but does no I/O.
package widespread

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Every poll counts as failing after this many failures in a row, of that many
// devices. A circuit opens after five tries, so that an API that is down is
// reported as that and not as this.
const (
	fewestPolls   = 10
	fewestDevices = 3
)

// State describes polls that fail whichever device they are of. The zero
// value means that there are none.
type State struct {
	Since  time.Time // of the first failure without a success after it
	Polls  int       // that failed since
	Reason string    // error of the poll that made it widespread
}

// Failures notices that no poll of any device succeeds: the API answers, but
// with nothing that can be used. One line reports that, instead of one for each
// device. It is safe for concurrent use.
type Failures struct {
	log *slog.Logger

	failing atomic.Bool // a failure was the last result
	mu      sync.Mutex
	now     State
	devices map[string]struct{} // at most fewestDevices
	on      bool
}

// New makes a detector that logs the beginning and the end.
func New(log *slog.Logger) *Failures { return &Failures{log: log} }

// Worked notes a poll that succeeded.
func (w *Failures) Worked() {
	if !w.failing.Load() {
		return
	}
	w.mu.Lock()
	was, on := w.now, w.on
	w.now, w.devices, w.on = State{}, nil, false
	w.failing.Store(false)
	w.mu.Unlock()
	if on {
		w.log.Info("polls succeed again", "count", was.Polls, "elapsed", time.Since(was.Since).Round(time.Millisecond))
	}
}

// Failed notes a poll that failed, of one of so many devices.
func (w *Failures) Failed(device string, devices int, err error) {
	w.mu.Lock()
	w.failing.Store(true)
	if w.now.Polls == 0 {
		w.now.Since, w.devices = time.Now(), map[string]struct{}{}
	}
	w.now.Polls++
	if len(w.devices) < fewestDevices {
		w.devices[device] = struct{}{}
	}
	begins := !w.on && w.now.Polls >= fewestPolls && len(w.devices) >= min(fewestDevices, max(devices, 1))
	if begins {
		w.on, w.now.Reason = true, err.Error()
	}
	w.mu.Unlock()
	if begins {
		w.log.Error("polls of all devices are failing", "err", err)
	}
}

// State returns the present condition.
func (w *Failures) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.on {
		return State{}
	}
	return w.now
}
