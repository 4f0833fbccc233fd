package outbound

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
	widespreadPolls   = 10
	widespreadDevices = 3
)

// Widespread describes polls that fail whichever device they are of. The zero
// value means that there are none.
type Widespread struct {
	Since  time.Time // of the first failure without a success after it
	Polls  int       // that failed since
	Reason string    // error of the poll that made it widespread
}

// widespread notices that no poll of any device succeeds: the API answers, but
// with nothing that can be used. One line reports that, instead of one for each
// device. It is safe for concurrent use.
type widespread struct {
	log *slog.Logger

	failing atomic.Bool // a failure was the last result
	mu      sync.Mutex
	now     Widespread
	devices map[string]struct{} // at most widespreadDevices
	on      bool
}

// worked notes a poll that succeeded.
func (w *widespread) worked() {
	if !w.failing.Load() {
		return
	}
	w.mu.Lock()
	was, on := w.now, w.on
	w.now, w.devices, w.on = Widespread{}, nil, false
	w.failing.Store(false)
	w.mu.Unlock()
	if on {
		w.log.Info("polls succeed again", "count", was.Polls, "elapsed", time.Since(was.Since).Round(time.Millisecond))
	}
}

// failed notes a poll that failed, of one of so many devices.
func (w *widespread) failed(device string, devices int, err error) {
	w.mu.Lock()
	w.failing.Store(true)
	if w.now.Polls == 0 {
		w.now.Since, w.devices = time.Now(), map[string]struct{}{}
	}
	w.now.Polls++
	if len(w.devices) < widespreadDevices {
		w.devices[device] = struct{}{}
	}
	begins := !w.on && w.now.Polls >= widespreadPolls && len(w.devices) >= min(widespreadDevices, max(devices, 1))
	if begins {
		w.on, w.now.Reason = true, err.Error()
	}
	w.mu.Unlock()
	if begins {
		w.log.Error("every device fails, no poll succeeds", "err", err)
	}
}

// state returns the present condition.
func (w *widespread) state() Widespread {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.on {
		return Widespread{}
	}
	return w.now
}

// Widespread returns whether the polls of all devices fail, and why.
func (p *Pool) Widespread() Widespread { return p.widespread.state() }
