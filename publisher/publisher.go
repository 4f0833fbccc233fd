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

// maxChains is the number of chains that can be in flight. Another call of
// [Publisher.Publish] blocks.
const maxChains = 1024

// ackTimeout is how long an answer may take before the event is sent again.
// Sending again is always safe, so it need not be long.
const ackTimeout = 5 * time.Second

var (
	// ErrUnstorable means that an event can never be stored: it or its headers are larger
	// than the server or the stream accepts, or the stream refused it repeatedly while
	// it stored others.
	ErrUnstorable = errors.New("event cannot be stored")
	// ErrFound means that an event in the middle of a chain was already in the stream.
	// The replica that stored it may have published more, so the caller has to plan
	// the rest of the chain again.
	ErrFound = errors.New("event was already in the stream")
	// ErrStopped means that the publisher stopped before the event was acknowledged. It
	// may be stored nevertheless.
	ErrStopped = errors.New("publisher stopped")
)

// Conflict is the error of a chain that the fence refused: another replica published
// to the subject, or the stream lost an acknowledged event.
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
	reader   *Reader
	log      *slog.Logger
	metrics  metrics

	window  chan struct{}
	replies chan reply
	stopped chan struct{}
	reads   sync.WaitGroup // of readLast

	flights    flights
	trouble    atomic.Pointer[string]
	lastAck    atomic.Int64 // Unix nanoseconds
	unstorable unstorable

	retries  retries  // used by the goroutine of Run alone
	identity identity // likewise
}

// New makes a publisher on a connection. Metrics are registered unless reg is nil.
func New(conn *Conn, subjects Subjects, log *slog.Logger, reg prometheus.Registerer) (*Publisher, error) {
	p := &Publisher{
		subjects: subjects, conn: conn, log: log, metrics: newMetrics(reg),
		window:   make(chan struct{}, maxChains),
		replies:  make(chan reply, maxChains),
		stopped:  make(chan struct{}),
		flights:  flights{byMsg: make(map[*nats.Msg]*flight)},
		identity: identity{stream: subjects.Events(), foreign: make(map[string]bool)},
	}
	var err error
	p.js, err = conn.OpenJetStream(
		jetstream.WithPublishAsyncMaxPending(2*maxChains), // above our own window, so that the library never stalls
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
	p.reader = &Reader{js: p.js, subjects: subjects, leader: &leader{p.js, subjects.Events()}, idle: readIdle}
	return p, nil
}

// JetStream returns the publisher's JetStream context.
func (p *Publisher) JetStream() jetstream.JetStream { return p.js }

// Subjects returns the subjects that the publisher publishes to.
func (p *Publisher) Subjects() Subjects { return p.subjects }

// Reader returns the reader of the events stream.
func (p *Publisher) Reader() *Reader { return p.reader }

// Last reads the last message of a subject, as [Reader.Last] does.
func (p *Publisher) Last(ctx context.Context, subject string) (*Stored, error) {
	return p.reader.Last(ctx, subject)
}

// Run handles the stream's answers until ctx is cancelled. Chains that are still in
// flight then end with [ErrStopped].
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

// Publish takes a chain of at least one event and returns. It blocks while the
// window is full, and its error is then the context's. done is called once, from
// the publisher's own goroutine, and must not block. Its argument is nil if every
// event is stored, a [*Conflict], [ErrFound], an error that wraps [ErrUnstorable], or
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

// Drain waits until all published chains are done. If ctx ends first, the error has
// the number of chains left. Nothing may be published in that time.
func (p *Publisher) Drain(ctx context.Context) error {
	for i := range maxChains {
		select {
		case p.window <- struct{}{}:
			continue // even if ctx is cancelled
		default:
		}
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("drain publisher: %d chains of events left: %w", maxChains-i, context.Cause(ctx))
		}
	}
	return nil
}

// stop ends all flights. Later answers from the client find no flight and are
// ignored.
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
	p.reads.Wait()
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

// Connected reports whether the broker can be reached. A dead connection that was
// not reset is noticed first by events without an answer.
func (p *Publisher) Connected() bool {
	if !p.conn.IsConnected() {
		return false
	}
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	return len(p.flights.byMsg) == 0 || time.Since(p.flights.waitingSince) <= patience
}

// patience is the time without an answer after which the broker counts as unreachable.
const patience = time.Second

// Pending returns the number of chains in flight.
func (p *Publisher) Pending() int { return len(p.window) }

// LastAck returns when the broker last acknowledged an event, or the zero time.
func (p *Publisher) LastAck() time.Time {
	if n := p.lastAck.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Trouble returns in one sentence why events are not stored, or "". It is set even if
// only some events wait, for example during a leader election. A single event that
// the stream refuses does not count.
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
			return "JetStream has not answered an event for more than " + late.String()
		}
	}
	return ""
}

// late is the time after which an event without an answer is trouble.
const late = 3 * time.Second

// Degraded returns in one sentence which locations can never be stored although
// others are, or "".
func (p *Publisher) Degraded() string {
	_, degraded := p.unstorable.state()
	return degraded
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
		Name: "plaspy_bridge_published_total", Help: "Events stored in the events stream, by kind: location, alert, device.",
	}, []string{"kind"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_events_refused_total",
		Help: "Events that can never be stored because they are too large or the stream refuses them, by kind: location, alert, device.",
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
			Name: "plaspy_bridge_publish_pending", Help: "Publications that are not stored yet; each has the events of one device in order.",
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

// Failure names the reason why an event is not stored, in a word that is fit for
// a span. It returns "" if err is nil, and "error" for an unknown reason.
func Failure(err error) string {
	_, conflict := errors.AsType[*Conflict](err)
	switch {
	case err == nil:
		return ""
	case conflict:
		return "conflict"
	case errors.Is(err, ErrFound):
		return "superseded"
	case errors.Is(err, ErrUnstorable):
		return "too_large"
	case errors.Is(err, ErrStopped):
		return "stopped"
	}
	return "error"
}
