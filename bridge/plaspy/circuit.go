package plaspy

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	tripTries   = 5
	tripDevices = 3
	// flapping is how soon an outage follows the one before it for its log lines to be left out, unless it lasts
	// for as long.
	flapping = 10 * time.Second
	// inUse is how long a device counts as one of those there are after a try.
	inUse = 10 * time.Minute
)

// CircuitOptions shape a [Circuit].
type CircuitOptions struct {
	Name       string        // polls or posts: the direction in the log and in the metric
	Initial    time.Duration // between the first probes; 0 and anything less than a second: 1 s
	Max        time.Duration // between later ones; less than Initial: Initial
	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil
	// Answered returns when the API itself answered last, to anything: [Client.Answered]. Optional. While it
	// moves on, answers of something in front of the API are no outage.
	Answered func() time.Time
	// Elsewhere returns how many requests of other kinds the API has answered: [Circuit.Answers]. Optional. While
	// it grows, probes to devices that have not failed before stay as frequent as the first ones.
	Elsewhere func() uint64
	// Counted means that all tries go to devices that SetDevices counts. Otherwise others tried of late count too.
	Counted bool
}

// Circuit notices that the API is down and then lets single probes through until it answers. It opens when
// five tries in a row, to three different devices or to all there are, end in an outage ([IsOutage]), or in
// answers of something in front of the API while the API itself answers nothing. Any other answer closes it at
// once. A device that fails, and fails again although another one was answered between, is in trouble itself: its
// failures do not count until nothing was answered since the last of them. It is safe for concurrent use.
//
// If many devices fail and the API answers other requests, a probe to a device that has not failed before may find
// one that works. Such probes go out once per Initial, until all devices that have something to send have failed.
type Circuit struct {
	opt  CircuitOptions
	open prometheus.Gauge

	mu      sync.Mutex
	devices int                  // how many there are; 0 means not known
	tried   map[string]time.Time // devices of late, at most tripDevices, and when they were tried last
	failed  map[string]uint64    // devices that fail, at most limitedMax, and the answers when they last did
	answers uint64               // tries that were answered
	row     row
	since   time.Time // when it opened; zero while closed
	probes  int
	next    time.Time     // no probe before
	gap     time.Duration // until the one after that
	others  uint64        // answers elsewhere when it opened
	ended   time.Time     // when the end of an outage was last logged
	quiet   bool          // the present outage was not logged
	lines   []func()      // log lines to write once mu is free, so that a slow log holds up no try
}

// row is a number of tries without an answer in between.
type row struct {
	tries   int
	failing map[string]struct{} // devices among them, at most tripDevices
	foreign time.Time           // when the first foreign answer among them came; zero means none did
}

// NewCircuit returns a closed circuit.
func NewCircuit(opt CircuitOptions) *Circuit {
	opt.Initial = max(opt.Initial, time.Second)
	opt.Max = max(opt.Max, opt.Initial)
	vec := register(opt.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_circuit_open",
		Help: "1 while the API is considered down and only probes are sent, by direction: polls, posts.",
	}, []string{"direction"}))
	c := &Circuit{opt: opt, open: vec.WithLabelValues(opt.Name), tried: map[string]time.Time{}, failed: map[string]uint64{}}
	c.open.Set(0)
	return c
}

// SetDevices sets how many devices there are: with fewer than three, all of them must fail for the circuit to
// open. Until it is called, there are as many as were tried within the last ten minutes.
func (c *Circuit) SetDevices(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.devices = n
}

// Report notes how a try ended; err is nil for a success. A failure that says nothing about the API, such as a
// try that its caller cancelled or a device id that cannot be sent, is ignored.
func (c *Circuit) Report(device string, err error) {
	_, answered := errors.AsType[*Error](err)
	if err != nil && (!answered || Classify(err) == Canceled) {
		return
	}
	c.mu.Lock()
	defer c.unlock()
	now := time.Now()
	c.useLocked(device, now)
	foreign := err != nil && Classify(err) == Foreign
	switch {
	case foreign:
		if c.apiAnswersLocked() {
			c.row = row{}
			c.closeLocked()
		}
		if c.row.foreign.IsZero() {
			c.row.foreign = now
		}
	case !IsOutage(err):
		c.row = row{}
		c.answers++
		delete(c.failed, device)
		c.closeLocked()
		return
	default:
		itself, fresh := c.itselfLocked(device)
		if itself {
			return
		}
		if fresh && c.elsewhere() > c.others {
			c.gap = c.opt.Initial
		}
	}
	c.row.add(device)
	if c.quiet && !c.since.IsZero() && time.Since(c.since) >= flapping {
		c.quiet = false
		c.downLocked(err)
	}
	if c.since.IsZero() && c.row.tries >= tripTries && len(c.row.failing) >= c.needLocked() {
		c.tripLocked(err)
	}
}

// itselfLocked notes that a device fails. It reports whether the device failed before and others were answered between,
// and whether this is its first failure.
func (c *Circuit) itselfLocked(device string) (itself, fresh bool) {
	before, known := c.failed[device]
	room := len(c.failed) < limitedMax
	if known || room {
		c.failed[device] = c.answers
	}
	return known && before < c.answers, !known && room
}

// elsewhere returns the number of answers to other requests.
func (c *Circuit) elsewhere() uint64 {
	if c.opt.Elsewhere == nil {
		return 0
	}
	return c.opt.Elsewhere()
}

// Answers returns how many tries were answered.
func (c *Circuit) Answers() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers
}

// useLocked notes that a device is among those there are.
func (c *Circuit) useLocked(device string, now time.Time) {
	if _, known := c.tried[device]; !known && len(c.tried) >= tripDevices {
		for other, at := range c.tried {
			if now.Sub(at) > inUse {
				delete(c.tried, other)
			}
		}
	}
	if _, known := c.tried[device]; known || len(c.tried) < tripDevices {
		c.tried[device] = now
	}
}

// needLocked returns how many devices must fail.
func (c *Circuit) needLocked() int {
	if c.opt.Counted && c.devices > 0 {
		return min(tripDevices, c.devices)
	}
	tried := 0
	for _, at := range c.tried {
		if time.Since(at) <= inUse {
			tried++
		}
	}
	return min(tripDevices, max(c.devices, tried))
}

// apiAnswersLocked reports whether the API itself has answered something since the first foreign answer of the row.
func (c *Circuit) apiAnswersLocked() bool {
	return c.opt.Answered != nil && !c.row.foreign.IsZero() && c.opt.Answered().After(c.row.foreign)
}

func (r *row) add(device string) {
	r.tries++
	if r.failing == nil {
		r.failing = map[string]struct{}{}
	}
	if len(r.failing) < tripDevices {
		r.failing[device] = struct{}{}
	}
}

func (c *Circuit) tripLocked(err error) {
	c.since = time.Now()
	c.probes, c.gap, c.others = 0, c.opt.Initial, c.elsewhere()
	c.scheduleLocked(c.since)
	c.open.Set(1)
	c.quiet = !c.ended.IsZero() && c.since.Sub(c.ended) < flapping
	c.downLocked(err)
}

func (c *Circuit) closeLocked() {
	if c.since.IsZero() {
		return
	}
	c.logLocked(slog.LevelInfo, "API answers again, resuming", "direction", c.opt.Name, "attempt", c.probes, "elapsed", time.Since(c.since))
	if !c.quiet {
		c.ended = time.Now()
	}
	c.since = time.Time{}
	c.open.Set(0)
}

func (c *Circuit) downLocked(err error) {
	c.logLocked(slog.LevelError, "API is down, pausing all requests except probes", "direction", c.opt.Name, "err", err, "attempt", c.row.tries)
}

// logLocked writes a line on the present outage, unless it follows the one before it too soon.
func (c *Circuit) logLocked(level slog.Level, msg string, args ...any) {
	if !c.quiet {
		c.lines = append(c.lines, func() { c.opt.Log.Log(context.Background(), level, msg, args...) }) //nolint:sloglint // constant at each call
	}
}

func (c *Circuit) unlock() {
	lines := c.lines
	c.lines = nil
	c.mu.Unlock()
	for _, line := range lines {
		line()
	}
}

// scheduleLocked sets the time of the next probe. Jitter only lengthens: the gaps are promised as minima.
func (c *Circuit) scheduleLocked(now time.Time) {
	c.next = now.Add(c.gap + rand.N(c.gap/10+1))
	c.gap = min(2*c.gap, c.opt.Max)
}

// Allow reports whether a try may be made at now. While the circuit is open, that try is a probe, which is
// used up by asking; if ok is false, at is when to ask again.
func (c *Circuit) Allow(now time.Time) (ok bool, at time.Time) {
	c.mu.Lock()
	defer c.unlock()
	c.lookLocked()
	switch {
	case c.since.IsZero():
		return true, now
	case now.Before(c.next):
		return false, c.next
	}
	c.probes++
	c.scheduleLocked(now)
	return true, now
}

// lookLocked closes a circuit that foreign answers opened if the API itself answers elsewhere.
func (c *Circuit) lookLocked() {
	if !c.since.IsZero() && c.apiAnswersLocked() && c.opt.Answered().After(c.since) {
		c.row = row{}
		c.closeLocked()
	}
}

// CircuitState is a snapshot for readiness.
type CircuitState struct {
	Open      bool
	Since     time.Time // when it opened; zero while closed
	Foreign   bool      // something in front of the API answers, and the API does not
	NextProbe time.Time // zero while closed
}

// State returns whether the circuit is open, and since when.
func (c *Circuit) State() CircuitState {
	c.mu.Lock()
	defer c.unlock()
	if c.lookLocked(); c.since.IsZero() {
		return CircuitState{}
	}
	return CircuitState{Open: true, Since: c.since, Foreign: !c.row.foreign.IsZero(), NextProbe: c.next}
}
