package plaspy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// severalDevices must be answered 429, without another one answered in between, for the limit to be everybody's.
	severalDevices = 3
	// passing is how soon a device must be answered again for its 429 to have been a limit on the rate of all requests.
	passing    = time.Minute
	limitedMax = 10_000 // devices that are remembered
)

// blame decides whether a 429 is about one device, such as its daily number of results, or about all requests.
//
// A 429 to a request without a device is about all. One for a device is about that device alone, unless three
// devices are answered 429 in a row: without an answer to any request that was sent later. A limit on the rate
// that lets some requests pass shows in a third way: three devices within a minute are answered 429 and, when
// they are asked again, served.
type blame struct {
	watching atomic.Bool // answers matter: there is a row, or there are limited devices

	mu      sync.Mutex
	row     []refusal          // of different devices, the ones in a row
	limited map[string]refusal // each device's last 429, until it is answered otherwise
	passed  []time.Time        // when limited devices were served again soon, within the last minute
	all     time.Time          // when all were last found to be limited
}

// refusal is a 429 for a device.
type refusal struct {
	device string
	sent   time.Time // the request
	at     time.Time // the answer
	until  time.Time // the end of its Retry-After; zero: it had none
}

// refused judges a 429 and reports whether it is about all requests.
func (b *blame) refused(r refusal) (all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.device == "" || r.sent.Before(b.all) {
		b.row, b.all = nil, r.at
		return true
	}
	_, known := b.limited[r.device]
	if b.limited == nil || len(b.limited) >= limitedMax {
		b.limited = map[string]refusal{}
	}
	b.limited[r.device] = r
	b.watching.Store(true)
	if known {
		return false
	}
	b.row = append(b.row, r)
	if len(b.row) < severalDevices {
		return false
	}
	for _, r := range b.row {
		delete(b.limited, r.device) // the limit was not theirs
	}
	b.row, b.all = nil, r.at
	return true
}

// answered notes another answer, and reports whether it shows that an earlier 429 was about all requests.
func (b *blame) answered(device string, sent, now time.Time) (all bool) {
	if !b.watching.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.row = slices.DeleteFunc(b.row, func(r refusal) bool { return r.sent.Before(sent) })
	if r, known := b.limited[device]; known && r.sent.Before(sent) {
		delete(b.limited, device)
		if now.Sub(r.at) < passing {
			b.passed = append(slices.DeleteFunc(b.passed, func(t time.Time) bool { return now.Sub(t) >= passing }), now)
		}
	}
	b.watching.Store(len(b.row) > 0 || len(b.limited) > 0)
	if len(b.passed) < severalDevices {
		return false
	}
	b.passed, b.all = nil, now
	return true
}

// rest returns how long a device must not be asked; 0 if it may be.
func (b *blame) rest(device string, now time.Time) time.Duration {
	if !b.watching.Load() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.limited[device].until.Sub(now))
}
