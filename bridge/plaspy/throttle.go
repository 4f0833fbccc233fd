package plaspy

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	retryAfterMax = time.Hour // a header that asks for more is taken for a mistake
	minFactor     = 0.01
	climbStep     = 0.05
	climbEvery    = 10 * time.Second
	halveEvery    = time.Second // answers to requests from before the last halving are no reason for another
	quiet         = 10 * time.Second
)

// brake is the effect of throttling on the budget. It belongs to the Budget's mutex.
type brake struct {
	until    time.Time // nothing is sent before
	factor   float64   // of the limit, as of at
	at       time.Time // since when the factor climbs
	halved   time.Time
	observed float64 // requests per minute that stand in for a limit if there is none

	since time.Time // when throttling began; zero while there is none
	last  time.Time // when it was last caused or seen to go on
	count int       // answers that caused it
}

// factorAt climbs by a twentieth of the limit every ten seconds without a 429.
func (k *brake) factorAt(now time.Time) float64 {
	if k.factor >= 1 {
		return 1
	}
	steps := math.Floor(float64(now.Sub(k.at)) / float64(climbEvery))
	f := k.factor + climbStep*max(steps, 0)
	if f > 1-1e-9 {
		return 1
	}
	return f
}

// lower sets the factor; it climbs from now or from the end of the stop.
func (k *brake) lower(now time.Time, factor float64) {
	k.factor, k.at = max(factor, minFactor), now
	if k.until.After(now) {
		k.at = k.until
	}
}

// refused notes a 429, for a device or for none, and reports whether it concerns that device alone. Any other
// one lowers or stops the budget.
func (b *Budget) refused(device string, sent time.Time, after time.Duration, has bool) (deviceOnly bool) {
	r := refusal{device: device, sent: sent, at: time.Now()}
	if after > 0 {
		r.until = r.at.Add(after)
	}
	if b.blame.refused(r) {
		b.Throttled(after, has)
		return false
	}
	b.throttled.Inc()
	b.deviceThrottled.Inc()
	return true
}

// answered notes an answer other than 429 and 5xx about a device.
func (b *Budget) answered(device string, sent time.Time) {
	if b.blame.watching.Load() && b.blame.answered(device, sent, time.Now()) {
		b.slow(0, false)
	}
}

// Throttled notes that the API answered 429, or 503 with Retry-After. With has, everything stops for
// retryAfter (at most an hour). Without, or if that is 0, the rate is halved, at most once a second, and then
// climbs back.
func (b *Budget) Throttled(retryAfter time.Duration, has bool) {
	b.throttled.Inc()
	b.slow(retryAfter, has)
}

// slow lowers the rate, or stops all requests, and calls the function of OnThrottle.
func (b *Budget) slow(retryAfter time.Duration, has bool) {
	b.mu.Lock()
	now := time.Now()
	k := &b.brake
	b.settleLocked(now)
	k.count++
	switch {
	case has && retryAfter > 0:
		if until := now.Add(min(retryAfter, retryAfterMax)); until.After(k.until) {
			k.until = until
		}
	case k.halved.IsZero() || now.Sub(k.halved) >= halveEvery:
		if b.limit == 0 && k.factorAt(now) == 1 {
			k.observed = b.meter.perMinute(now)
		}
		k.lower(now, k.factorAt(now)/2)
		k.halved = now
	default:
		k.lower(now, k.factorAt(now)) // no halving, but the climb begins again
	}
	b.brakedLocked(now)
	until, factor := k.until, k.factorAt(now)
	b.mu.Unlock()
	if f := b.onThrottle.Load(); f != nil {
		(*f)(until, factor)
	}
}

// OnThrottle sets the function that is called at every throttling that this process sees: until when everything
// stops (a time in the past if it does not) and to which part of its limit the rate was lowered. It runs on the
// goroutine that got the answer and must not block.
func (b *Budget) OnThrottle(f func(until time.Time, factor float64)) { b.onThrottle.Store(&f) }

// ThrottleUntil obeys a throttling that another replica saw, with the arguments of its OnThrottle. It never
// eases a throttling in force here, and OnThrottle is not called.
func (b *Budget) ThrottleUntil(until time.Time, factor float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	k := &b.brake
	if latest := now.Add(retryAfterMax); until.After(latest) {
		until = latest
	}
	if until.After(now) && until.After(k.until) {
		// By way of a duration: the sender's time has no monotonic part, and ours may be set meanwhile.
		k.until = now.Add(until.Sub(now))
	}
	if factor < k.factorAt(now) {
		if b.limit == 0 && k.factorAt(now) == 1 {
			k.observed = b.meter.perMinute(now)
		}
		k.lower(now, factor)
	}
	if k.until.After(now) || k.factorAt(now) < 1 {
		b.brakedLocked(now)
	}
}

// Paused reports whether nothing is sent, because a Retry-After runs or the account's daily usage is used up.
func (b *Budget) Paused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return b.brake.until.After(now) || b.day.State(now.Sub(b.made), int(Poll), b.rateLocked(now)).UsedUp
}

// SetLimit replaces the limit that [NewBudget] was given, in requests per minute; 0 means no limit. Requests that
// were sent under a higher limit still count.
func (b *Budget) SetLimit(perMinute int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.settleLocked(now)
	perMinute = max(perMinute, 0)
	if perMinute == b.limit {
		return
	}
	b.limit = perMinute
	braked := b.brake.until.After(now) || b.brake.factorAt(now) < 1
	if perMinute == 0 && braked && b.brake.observed == 0 {
		b.brake.observed = b.meter.perMinute(now)
	}
	free := perMinute == 0 && !braked && !b.day.On()
	if b.free.Swap(free) && !free {
		b.slot = now // nothing was counted until now
	}
	b.grantDueLocked(now)
}

// brakedLocked applies a new throttling: it logs the first one, turns off the path of a budget without a limit, and
// moves waiters to their new slots.
func (b *Budget) brakedLocked(now time.Time) {
	k := &b.brake
	k.last = now
	if k.since.IsZero() {
		k.since = now
		b.log.Warn("API is throttling requests, slowing down", "delay", max(0, k.until.Sub(now)))
	}
	if b.limit == 0 && b.free.Swap(false) {
		b.slot = now
	}
	b.grantDueLocked(now)
}

// settleLocked notices the end of throttling. It counts as over only after a while of quiet, or an API that answers
// every retry with another Retry-After would fill the log.
func (b *Budget) settleLocked(now time.Time) {
	k := &b.brake
	if k.since.IsZero() {
		return
	}
	if k.until.After(now) || k.factorAt(now) < 1 {
		k.last = now
		return
	}
	k.factor = 1
	if b.limit == 0 {
		b.free.Store(!b.day.On())
	}
	if now.Sub(k.last) < quiet {
		return
	}
	b.log.Info("API throttling ended", "attempt", k.count, "elapsed", now.Sub(k.since))
	k.since, k.count = time.Time{}, 0
}

const (
	// severalDevices must be answered 429, without another one answered in between, for the limit to be about all requests.
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
	until  time.Time // the end of its Retry-After; zero means it had none
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
func (b *blame) rest(device string) time.Duration {
	if !b.watching.Load() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, time.Until(b.limited[device].until))
}
