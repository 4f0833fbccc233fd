package inbound

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/tick"
)

// gaugeEvery is the time between two readings of the number of messages in the
// streams.
const gaugeEvery = 5 * time.Second

// Results as the metrics name them.
const (
	resultPosted  = "posted"
	resultDead    = "dead"
	resultRetried = "retried"
)

type metrics struct {
	total    *prometheus.CounterVec
	duration prometheus.Histogram
	pending  prometheus.Gauge
	letters  prometheus.Gauge
	inMemory prometheus.Gauge
	lanes    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plaspy_bridge_inbound_total",
			Help: "Inbound messages, by kind (location, alert, unknown) and result: posted, dead (dead-lettered), retried (attempts that will be repeated).",
		}, []string{"kind", "result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plaspy_bridge_inbound_post_duration_seconds", Help: "Duration of one attempt to post an inbound message, including its wait for the request budget.",
			Buckets:                     []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_inbound_pending", Help: "Messages in the inbound stream that are neither posted nor dead-lettered yet.",
		}),
		letters: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_dead_letters", Help: "Messages in the dead-letter stream.",
		}),
		inMemory: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_inbound_in_hand", Help: "Inbound messages in this replica's memory.",
		}),
		lanes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "plaspy_bridge_inbound_lanes", Help: "Devices with inbound messages that this replica knows of, by state: ready (or being posted), waiting (after a failure), parked (the API is down).",
		}, []string{"state"}),
	}
	for _, kind := range []message.Kind{message.Location, message.Alert} {
		for _, result := range []string{resultPosted, resultDead, resultRetried} {
			m.total.WithLabelValues(string(kind), result)
		}
	}
	m.total.WithLabelValues(string(message.Unknown), resultDead)
	if reg != nil {
		reg.MustRegister(m.total, m.duration, m.pending, m.letters, m.inMemory, m.lanes)
	}
	return m
}

func (m *metrics) count(kind message.Kind, result string) {
	m.total.WithLabelValues(string(kind), result).Inc()
}

// gauge keeps the gauges and the liveness signal current, also in a replica
// that does not consume.
func (c *Consumer) gauge(ctx context.Context) {
	for {
		if c.opt.Progress != nil && !c.stuck() {
			c.opt.Progress()
		}
		if n, ok := c.messages(ctx, c.opt.Subjects.Inbound()); ok {
			c.metrics.pending.Set(n)
			c.pending.Store(int64(n))
		}
		if n, ok := c.messages(ctx, c.opt.Subjects.DeadLetters()); ok {
			c.metrics.letters.Set(n)
		}
		s := c.Status()
		c.metrics.inMemory.Set(float64(s.InMemory))
		c.metrics.lanes.WithLabelValues("ready").Set(float64(s.Ready))
		c.metrics.lanes.WithLabelValues("waiting").Set(float64(s.Waiting))
		c.metrics.lanes.WithLabelValues("parked").Set(float64(s.Parked))
		if !sleep(ctx, tick.Until(time.Now(), gaugeEvery)) {
			return
		}
	}
}

func (c *Consumer) messages(ctx context.Context, name string) (float64, bool) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.request)
	defer cancel()
	st, err := c.opt.JetStream.Stream(ctx, name)
	if err != nil {
		return 0, false
	}
	return float64(st.CachedInfo().State.Msgs), true
}

// Status is a snapshot for readiness and the live view.
type Status struct {
	Holding  bool // this replica consumes
	InMemory int  // messages in memory
	Ready    int  // lanes that are being worked on, or will be next
	Waiting  int  // lanes that wait after a failure
	Parked   int  // lanes that wait for the API to come back
}

// Status returns a snapshot.
func (c *Consumer) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.lanes.Status()
	return Status{Holding: c.holding.Load(), InMemory: s.InMemory, Ready: s.Lanes - s.Waiting - s.Parked, Waiting: s.Waiting, Parked: s.Parked}
}

// Trouble returns why the consumer cannot work, or "".
func (c *Consumer) Trouble() string { return c.trouble.String() }

// Degraded returns in one sentence the reason that keeps messages from being posted although
// the consumer works, or "".
func (c *Consumer) Degraded() string {
	if st := c.opt.Circuit.State(); st.Open {
		return fmt.Sprintf("the API does not take posts since %s; messages wait in the stream", st.Since.UTC().Format(time.RFC3339))
	}
	return ""
}

// part is a part of the consumer that can fail.
type part int

const (
	partStream part = iota // reading the inbound stream
	partStore              // storing results, dead letters and the progress of batches
	parts
)

// troubles keeps the last error of each part until it works again.
type troubles struct {
	mu   sync.Mutex
	errs [parts]error
}

// set notes an error, and reports whether there was none before.
func (t *troubles) set(p part, err error) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first = t.errs[p] == nil
	t.errs[p] = err
	return first
}

func (t *troubles) clear(p part) { t.set(p, nil) }

// String joins the errors.
func (t *troubles) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for _, err := range t.errs {
		if err != nil {
			list = append(list, err.Error())
		}
	}
	return strings.Join(list, "; ")
}

// limitedLog writes a few lines a second and counts the rest: a hundred thousand
// invalid messages must not drown the log.
type limitedLog struct {
	mu         sync.Mutex
	second     time.Time
	lines      int
	suppressed int
}

const linesPerSecond = 5

func (l *limitedLog) warn(log *slog.Logger, msg string, attrs ...any) {
	l.mu.Lock()
	if now := time.Now(); now.Sub(l.second) >= time.Second {
		l.second, l.lines = now, 0
	}
	l.lines++
	if l.lines > linesPerSecond {
		l.suppressed++
		l.mu.Unlock()
		return
	}
	if l.suppressed > 0 {
		attrs = append(attrs, "suppressed", l.suppressed)
		l.suppressed = 0
	}
	l.mu.Unlock()
	log.Warn(msg, attrs...) //nolint:sloglint // constant at each call; this only bounds how many
}

const (
	// loadCell and loadCells make the minute over which tries are counted.
	loadCell  = 5 * time.Second
	loadCells = 12
	// loadSettles is the time constant of the estimate. A burst of a second or two is
	// no reason to divide the budget again.
	loadSettles = 10 * time.Second
)

// load estimates how many posts a minute a consumer would make if the budget
// let it. It is safe for concurrent use.
type load struct {
	mu    sync.Mutex
	cells [loadCells]int // tries, each of loadCell
	cell  int64          // number of the newest cell, counted from 1970
	level float64        // the estimate
	at    time.Time      // when level was computed; zero means that there is none
}

// tried counts a post that was sent.
func (d *load) tried(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turnLocked(now)
	d.cells[d.cell%loadCells]++
}

// turnLocked clears the cells that are older than a minute.
func (d *load) turnLocked(now time.Time) {
	cell := now.UnixNano() / int64(loadCell)
	if back := d.cell - cell; back > 0 && back < loadCells {
		return // the clock was set back a little
	}
	if cell < d.cell || cell-d.cell >= loadCells {
		d.cells = [loadCells]int{}
		d.cell = cell
		return
	}
	for d.cell < cell {
		d.cell++
		d.cells[d.cell%loadCells] = 0
	}
}

// wanted returns the estimate: the tries of the last minute, and the messages that
// wait only for the budget.
func (d *load) wanted(now time.Time, backlog int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turnLocked(now)
	for _, n := range d.cells {
		backlog += n
	}
	if d.at.IsZero() || now.Before(d.at) {
		d.at = now
	}
	d.level += (float64(backlog) - d.level) * (1 - math.Exp(-float64(now.Sub(d.at))/float64(loadSettles)))
	d.at = now
	return int(d.level + 0.5)
}

// Wanted estimates how many posts a minute this replica would make if the budget
// had room for them, smoothed; 0 while it does not post. starved reports that posts
// wait for the budget: otherwise something else bounds them, and the backlog does
// not count. It is meant to be called every second or so.
func (c *Consumer) Wanted(starved bool) int {
	backlog := 0
	if starved {
		c.mu.Lock()
		backlog = c.lanes.Backlog(int(c.pending.Load()))
		c.mu.Unlock()
	}
	return c.load.wanted(time.Now(), backlog)
}
