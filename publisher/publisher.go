package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// Window is the number of chains that can be in flight. One more blocks its author.
const Window = 1024

// ackTimeout is how long an answer may take before the event is sent again.
// Sending again is always safe, so it need not be long.
const ackTimeout = 5 * time.Second

var (
	// ErrTooLarge says that an event can never be stored: it, or its headers, are
	// larger than the server or the stream accepts, or the stream refused it again
	// and again while it stored others.
	ErrTooLarge = errors.New("event cannot be stored")
	// ErrFound says that an event in the middle of a chain was in the stream
	// already. The replica that stored it may have gone on, so the rest of the
	// chain is to be decided anew.
	ErrFound = errors.New("event was in the stream already")
	// ErrStopped says that the publisher was stopped before the event was known to
	// be stored. It may be stored all the same.
	ErrStopped = errors.New("publisher stopped")
)

// Conflict is the error of a chain whose fence the stream refused: another replica
// published to the subject, or the stream lost an acknowledged event.
type Conflict struct {
	Event *Event  // the event that was refused; those before it in the chain are stored
	Last  *Stored // the subject's last message, or nil
}

// Error names the two sequences.
func (c *Conflict) Error() string {
	var last uint64
	if c.Last != nil {
		last = c.Last.Seq
	}
	return fmt.Sprintf("publish to %s: the stream's last sequence is %d, expected %d", c.Event.Subject, last, c.Event.Expect)
}

// Publisher stores events in the events stream, once each and in order. It is
// safe for concurrent use. [Publisher.Run] has to run while it is used.
type Publisher struct {
	subjects Subjects
	conn     *Conn
	js       jetstream.JetStream
	leader   *Leader // of the events stream
	log      *slog.Logger
	metrics  metrics

	window  chan struct{}
	replies chan reply
	stopped chan struct{}
	looks   sync.WaitGroup

	flights    flights
	trouble    atomic.Pointer[string]
	lastAck    atomic.Int64 // Unix nanoseconds
	life       life
	unstorable unstorable

	work // owned by Run
}

// work is used by the goroutine of Run alone.
type work struct {
	retries   retries
	home      *string         // the JetStream domain of the events stream, once an answer has shown it
	homing    bool            // a look for home is under way
	strangers map[string]bool // foreign streams that were logged
}

// New makes a publisher on a connection. Metrics are registered unless reg is nil.
func New(conn *Conn, subjects Subjects, log *slog.Logger, reg prometheus.Registerer) (*Publisher, error) {
	p := &Publisher{
		subjects: subjects, conn: conn, log: log, metrics: newMetrics(reg),
		window:  make(chan struct{}, Window),
		replies: make(chan reply, Window),
		stopped: make(chan struct{}),
		flights: flights{byMsg: make(map[*nats.Msg]*flight)},
		work:    work{strangers: make(map[string]bool)},
	}
	var err error
	p.js, err = conn.OpenJetStream(
		jetstream.WithPublishAsyncMaxPending(2*Window), // above our own window: the library's stall never comes
		jetstream.WithPublishAsyncTimeout(ackTimeout),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) {
			p.answered(m, ack, nil)
		}),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) {
			p.answered(m, nil, err)
		}))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	p.leader = NewLeader(p.js, subjects.Events())
	return p, nil
}

// JetStream returns the publisher's JetStream context.
func (p *Publisher) JetStream() jetstream.JetStream { return p.js }

// Subjects returns the subjects that the publisher publishes to.
func (p *Publisher) Subjects() Subjects { return p.subjects }

// Connected reports whether the broker can be reached. A connection that is dead
// and was not reset shows first in events that are not answered.
func (p *Publisher) Connected() bool {
	if !p.conn.IsConnected() {
		return false
	}
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	return len(p.flights.byMsg) == 0 || time.Since(p.flights.owed) <= patience
}

// patience is after how long without an answer the broker counts as out of reach.
const patience = time.Second

// LastAck returns when the broker last acknowledged an event, or the zero time.
func (p *Publisher) LastAck() time.Time {
	if n := p.lastAck.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Pending returns the number of chains in flight.
func (p *Publisher) Pending() int { return len(p.window) }

// Trouble says in one sentence why events are not being stored, or "". While a
// cluster elects a leader, some may be stored and others wait: that is trouble
// too. An event that the stream refuses for itself is not.
func (p *Publisher) Trouble() string {
	if s := p.trouble.Load(); s != nil {
		return *s
	}
	if down, _ := p.unstorable.state(); down != "" {
		return down
	}
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	for _, f := range p.flights.byMsg {
		if f.refused == 0 && time.Since(f.events[f.next].sent) > late {
			return "JetStream has not answered an event for " + late.String() + " and more"
		}
	}
	return ""
}

// Degraded says in one sentence which locations can never be stored while others
// are, or "".
func (p *Publisher) Degraded() string {
	_, degraded := p.unstorable.state()
	return degraded
}

// late is how long an event may go without an answer.
const late = 3 * time.Second

// Publish takes a chain of at least one event and returns. It blocks while the
// window is full, and its error is then the context's. done is called once, from
// the publisher's own goroutine, and must not block. Its argument is nil if every
// event is stored, a [*Conflict], [ErrFound], an error that wraps [ErrTooLarge], or
// one that wraps [ErrStopped]. The events before the one that the error is about
// are stored and have their Seq.
func (p *Publisher) Publish(ctx context.Context, events []*Event, done func(error)) error {
	select {
	case p.window <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.stopped:
		return ErrStopped
	}
	p.metrics.pending.Inc()
	if !p.send(&flight{events: events, done: done}) {
		p.release()
		return ErrStopped
	}
	return nil
}

// Run handles the stream's answers until ctx is cancelled. What is still in flight
// then is reported as [ErrStopped].
func (p *Publisher) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case r := <-p.replies:
			p.handle(ctx, r)
		case <-timer.C:
			p.retry()
		case <-ctx.Done():
			p.stop()
			return
		}
		if wait, ok := p.retries.next(time.Now()); ok {
			timer.Reset(wait)
		}
	}
}

// retry sends the flights that are due.
func (p *Publisher) retry() {
	now := time.Now()
	due := p.retries.take(now)
	if !p.conn.IsConnected() {
		for _, f := range due {
			f.due = now.Add(minRetry)
		}
		p.retries.list = append(p.retries.list, due...)
		return
	}
	for _, f := range due {
		p.send(f)
	}
}

// Drain waits until everything that was published is stored. If ctx ends first, its
// error says how many chains are left. Nothing else may be published in that time.
func (p *Publisher) Drain(ctx context.Context) error {
	for i := range Window {
		select {
		case p.window <- struct{}{}:
			continue // also if ctx is over already
		default:
		}
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("drain publisher: %d chains of events left: %w", Window-i, context.Cause(ctx))
		}
	}
	return nil
}

// stop gives back the flights. The client may yet answer; those answers
// find no flight.
func (p *Publisher) stop() {
	close(p.stopped)
	left := p.retries.list
	p.flights.mu.Lock()
	p.flights.closed = true
	for _, f := range p.flights.byMsg {
		left = append(left, f)
	}
	clear(p.flights.byMsg)
	p.flights.mu.Unlock()
	p.looks.Wait()
	for {
		select {
		case r := <-p.replies:
			left = append(left, r.f)
			continue
		default:
		}
		break
	}
	for _, f := range left {
		p.finish(f, fmt.Errorf("publish to %s: %w", f.events[f.next].Subject, ErrStopped))
	}
}

type kind int

const (
	kindLocation kind = iota
	kindAlert
	kindDevice
	kinds
)

type metrics struct {
	published [kinds]prometheus.Counter
	refused   [kinds]prometheus.Counter
	errors    prometheus.Counter
	duration  prometheus.Histogram
	pending   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	published := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_published_total", Help: "Events stored in the events stream, by kind.",
	}, []string{"kind"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_events_refused_total",
		Help: "Events that can never be stored because they are too large or the stream refuses them, by kind.",
	}, []string{"kind"})
	m := metrics{
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "plaspy_bridge_publish_errors_total", Help: "Failed attempts to store an event; each is retried.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "plaspy_bridge_publish_duration_seconds", Help: "Time from an event's first attempt to its acknowledgement.",
			Buckets:                     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_publish_pending", Help: "Chains of events that wait for an acknowledgement.",
		}),
	}
	for k, label := range map[kind]string{kindLocation: "location", kindAlert: "alert", kindDevice: "device"} {
		m.published[k] = published.WithLabelValues(label)
		m.refused[k] = refused.WithLabelValues(label)
	}
	if reg != nil {
		reg.MustRegister(published, refused, m.errors, m.duration, m.pending)
	}
	return m
}

func (m *metrics) stored(e *Event) {
	m.published[e.kind].Inc()
	m.duration.Observe(time.Since(e.sent).Seconds())
}
