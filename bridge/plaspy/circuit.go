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
	// flapping is how soon an outage follows the one before where an operator
	// need not hear of it, unless it lasts for as long.
	flapping = 10 * time.Second
)

// CircuitOptions shape a [Circuit].
type CircuitOptions struct {
	Name       string        // polls or posts: the direction in the log and in the metric
	Initial    time.Duration // between the first probes; 0 and anything less than a second: 1 s
	Max        time.Duration // between later ones; less than Initial: Initial
	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil
}

// Circuit notices that the API is down and then lets single probes through until it answers. It opens when
// five tries in a row, to three different devices or to all there are, end in an outage ([IsOutage]); any
// other answer closes it at once. It is safe for concurrent use.
type Circuit struct {
	opt  CircuitOptions
	open prometheus.Gauge

	mu      sync.Mutex
	devices int                 // how many there are; 0: not known
	tries   int                 // outages in a row
	failing map[string]struct{} // devices among them, at most tripDevices
	since   time.Time           // when it opened; zero while closed
	probes  int
	next    time.Time     // no probe before
	gap     time.Duration // until the one after that
	changed chan struct{} // closed and replaced when it opens or closes
	told    time.Time     // when the end of an outage was last logged
	quiet   bool          // the present outage was not logged
}

// NewCircuit returns a closed circuit.
func NewCircuit(opt CircuitOptions) *Circuit {
	opt.Initial = max(opt.Initial, time.Second)
	opt.Max = max(opt.Max, opt.Initial)
	vec := register(opt.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_circuit_open",
		Help: "1 while the API is taken to be down and only probes are sent, by direction.",
	}, []string{"direction"}))
	c := &Circuit{opt: opt, open: vec.WithLabelValues(opt.Name), failing: map[string]struct{}{}, changed: make(chan struct{})}
	c.open.Set(0)
	return c
}

// SetDevices tells how many devices there are: with fewer than three, all of them must fail for the circuit to
// open. Until it is called there are taken to be enough.
func (c *Circuit) SetDevices(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.devices = n
}

// Report tells how a try ended, err being nil for a success. What tells nothing about the API, such as a try
// that its caller cancelled or a device id that cannot be sent, is ignored.
func (c *Circuit) Report(device string, err error) {
	_, answered := errors.AsType[*Error](err)
	if err != nil && (!answered || Classify(err) == Canceled) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !IsOutage(err) {
		c.close()
		return
	}
	c.tries++
	if len(c.failing) < tripDevices {
		c.failing[device] = struct{}{}
	}
	need := tripDevices
	if c.devices > 0 {
		need = min(need, c.devices)
	}
	if c.quiet && !c.since.IsZero() && time.Since(c.since) >= flapping {
		c.quiet = false
		c.down(err)
	}
	if c.since.IsZero() && c.tries >= tripTries && len(c.failing) >= need {
		c.trip(err)
	}
}

func (c *Circuit) trip(err error) {
	c.since = time.Now()
	c.probes, c.gap = 0, c.opt.Initial
	c.schedule(c.since)
	c.open.Set(1)
	c.quiet = !c.told.IsZero() && c.since.Sub(c.told) < flapping
	c.down(err)
	c.broadcast()
}

func (c *Circuit) close() {
	c.tries = 0
	clear(c.failing)
	if c.since.IsZero() {
		return
	}
	c.log().Info("API answers again, resuming", "direction", c.opt.Name, "attempt", c.probes, "elapsed", time.Since(c.since))
	if !c.quiet {
		c.told = time.Now()
	}
	c.since = time.Time{}
	c.open.Set(0)
	c.broadcast()
}

func (c *Circuit) down(err error) {
	c.log().Error("API is down, pausing but for probes", "direction", c.opt.Name, "err", err, "attempt", c.tries)
}

// log is where lines on the present outage go: nowhere, where it follows the one
// before too soon.
func (c *Circuit) log() *slog.Logger {
	if c.quiet {
		return slog.New(slog.DiscardHandler)
	}
	return c.opt.Log
}

func (c *Circuit) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// schedule sets the time of the next probe. Jitter only lengthens: the gaps are promised as minima.
func (c *Circuit) schedule(now time.Time) {
	c.next = now.Add(c.gap + rand.N(c.gap/10+1))
	c.gap = min(2*c.gap, c.opt.Max)
}

// Allow reports whether a try may be made at now. While the circuit is open that is a probe, which is
// taken with the answer; where it is false, at is when to ask again.
func (c *Circuit) Allow(now time.Time) (ok bool, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allow(now)
}

func (c *Circuit) allow(now time.Time) (ok bool, at time.Time) {
	if c.since.IsZero() {
		return true, now
	}
	if now.Before(c.next) {
		return false, c.next
	}
	c.probes++
	c.schedule(now)
	return true, now
}

// Wait blocks until a try may be made, as told by [Circuit.Allow], or ctx is done.
func (c *Circuit) Wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		ok, at := c.allow(time.Now())
		changed := c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// CircuitState is a snapshot for readiness.
type CircuitState struct {
	Open      bool
	Since     time.Time // when it opened; zero while closed
	Probes    int       // sent since then
	NextProbe time.Time // zero while closed
}

// State returns how things stand.
func (c *Circuit) State() CircuitState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return CircuitState{}
	}
	return CircuitState{Open: true, Since: c.since, Probes: c.probes, NextProbe: c.next}
}
