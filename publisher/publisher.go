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

// Window is how many chains are under way at once; one more blocks its author.
const Window = 1024

const (
	// ackTimeout is how long an answer may take before the event is sent
	// again. Sending again is always safe, so it need not be long.
	ackTimeout  = 5 * time.Second
	lookTimeout = 3 * time.Second
	minRetry    = 100 * time.Millisecond
	maxRetry    = 5 * time.Second
)

// JetStream error codes that decide what becomes of a publish; see the
// server's errors.json.
const (
	codeWrongLastSequence         jetstream.ErrorCode = 10071
	codeWrongLastSequenceConstant jetstream.ErrorCode = 10164
	codeMessageTooLarge           jetstream.ErrorCode = 10054
	codeInsufficientResources     jetstream.ErrorCode = 10023
	codeStorageExceeded           jetstream.ErrorCode = 10047
)

var (
	// ErrTooLarge tells that an event is larger than the server or the stream
	// accepts, so that it can never be published.
	ErrTooLarge = errors.New("event is larger than the server accepts")
	// ErrFound tells that an event in the middle of a chain was in the stream
	// already. Whoever put it there may have gone on: what follows is to be
	// decided anew.
	ErrFound = errors.New("event was in the stream already")
	// ErrStopped tells that the publisher was stopped before the event was
	// known to be stored. It may be stored all the same.
	ErrStopped = errors.New("publisher stopped")
)

// Conflict is the error of a chain whose fence the stream refused: somebody
// else published to the subject, or the stream lost what it had acknowledged.
type Conflict struct {
	Event *Event  // the event that was refused; those before it in the chain are stored
	Last  *Stored // the subject's last message, nil where there is none
}

// Error tells the two sequences.
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
	legacy   nats.JetStreamContext
	log      *slog.Logger
	metrics  metrics

	window  chan struct{}
	replies chan reply
	stopped chan struct{}
	looks   sync.WaitGroup

	mu      sync.Mutex
	flights map[*nats.Msg]*flight
	owed    time.Time // since when there have been flights without any answer
	closed  bool      // no flight may start any more

	trouble atomic.Pointer[string]
	acked   atomic.Uint64 // highest sequence that was acknowledged
	lost    atomic.Uint64 // see Lost
	lastAck atomic.Int64  // Unix nanoseconds

	// Owned by Run.
	doubtful []*flight
	delay    time.Duration
	failed   int // tries since the last success
}

// flight is a chain on its way; at most one of its events is out at a time.
type flight struct {
	events []*Event
	next   int
	done   func(error)
}

// reply is what became of the event that a flight has out.
type reply struct {
	f         *flight
	ack       *jetstream.PubAck
	err       error
	looked    bool // a look at the stream, because of a refused fence or
	duplicate bool // because the answer was that the id is known
	last      *Stored
}

// New makes a publisher on a connection. Metrics are registered where reg is
// not nil.
func New(conn *Conn, subjects Subjects, log *slog.Logger, reg prometheus.Registerer) (*Publisher, error) {
	p := &Publisher{
		subjects: subjects, conn: conn, log: log, metrics: newMetrics(reg),
		window:  make(chan struct{}, Window),
		replies: make(chan reply, Window),
		stopped: make(chan struct{}),
		flights: make(map[*nats.Msg]*flight),
		delay:   minRetry,
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
	var domain []nats.JSOpt
	if conn.Domain() != "" {
		domain = append(domain, nats.Domain(conn.Domain()))
	}
	if p.legacy, err = conn.JetStream(domain...); err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return p, nil
}

// JetStream gives the publisher's JetStream context.
func (p *Publisher) JetStream() jetstream.JetStream { return p.js }

// Subjects gives the subjects that the publisher publishes to.
func (p *Publisher) Subjects() Subjects { return p.subjects }

// Connected reports whether the broker can be reached: a connection that is dead
// and was not reset shows first in events that are not answered.
func (p *Publisher) Connected() bool { return p.conn.IsConnected() && !p.silent() }

// patience is after how long without an answer the broker counts as out of reach.
const patience = time.Second

func (p *Publisher) silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flights) > 0 && time.Since(p.owed) > patience
}

// Acked is the highest stream sequence that the broker has acknowledged.
func (p *Publisher) Acked() uint64 { return p.acked.Load() }

// ResetAcked sets what [Publisher.Acked] tells, after the broker lost data.
func (p *Publisher) ResetAcked(seq uint64) { p.acked.Store(seq) }

// LastAck is when the broker last acknowledged an event, zero if never.
func (p *Publisher) LastAck() time.Time {
	if n := p.lastAck.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Pending is how many chains are on their way.
func (p *Publisher) Pending() int { return len(p.window) }

// Trouble tells in one sentence why events are not being stored, or "" while
// they are, every one of them: while a cluster elects a leader some are and
// others wait.
func (p *Publisher) Trouble() string {
	if s := p.trouble.Load(); s != nil {
		return *s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flights {
		if time.Since(f.events[f.next].sent) > late {
			return "JetStream has not answered an event for " + late.String() + " and more"
		}
	}
	return ""
}

// late is how long an event may be without an answer.
const late = 3 * time.Second

// Publish takes a chain of at least one event and returns; it blocks while the
// window is full, and its error is then the context's. done is called once,
// from the publisher's own goroutine, and must not block: with nil when every
// event is stored, with a [*Conflict], with [ErrFound], with an error that wraps
// [ErrTooLarge], or with one that wraps [ErrStopped]. The events before the one
// that it is about are stored; their Seq tells.
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

// Run handles the stream's answers until the context ends. What is still out
// then is reported as [ErrStopped].
func (p *Publisher) Run(ctx context.Context) {
	retry := time.NewTimer(0)
	<-retry.C
	defer retry.Stop()
	for {
		select {
		case r := <-p.replies:
			before := len(p.doubtful)
			p.handle(ctx, r)
			if before == 0 && len(p.doubtful) > 0 {
				retry.Reset(p.delay)
				p.delay = min(2*p.delay, maxRetry)
			}
		case <-retry.C:
			p.retry(retry)
		case <-ctx.Done():
			p.stop()
			return
		}
	}
}

// Drain waits until everything that was published is stored, or the context
// ends; then its error tells how many chains are left. Nothing else may be
// published meanwhile.
func (p *Publisher) Drain(ctx context.Context) error {
	for i := range Window {
		select {
		case p.window <- struct{}{}:
			continue // also where ctx is over already
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

// send puts the flight's next event on its way; false: the publisher has
// stopped.
func (p *Publisher) send(f *flight) bool {
	e := f.events[f.next]
	if e.ID == "" {
		e.stamp(f.expect())
		e.sent = time.Now()
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	if len(p.flights) == 0 {
		p.owed = time.Now()
	}
	p.flights[e.msg] = f
	p.mu.Unlock()
	if _, err := p.js.PublishMsgAsync(e.msg); err != nil {
		p.answered(e.msg, nil, err)
	}
	return true
}

// expect is the fence of the flight's next event: what an earlier event of the
// chain got on the same subject, or else what its author set.
func (f *flight) expect() uint64 {
	e := f.events[f.next]
	for i := f.next - 1; i >= 0; i-- {
		if f.events[i].Subject == e.Subject {
			return f.events[i].Seq
		}
	}
	return e.Expect
}

// answered runs on the client's goroutines, once for every send. There is room
// in replies for all that can be out: a flight is in flights, in replies, looked
// for or doubtful, and never in two of them.
func (p *Publisher) answered(m *nats.Msg, ack *jetstream.PubAck, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed = time.Now()
	if f := p.flights[m]; f != nil {
		delete(p.flights, m)
		p.replies <- reply{f: f, ack: ack, err: err}
	}
}

func (p *Publisher) handle(ctx context.Context, r reply) {
	e := r.f.events[r.f.next]
	switch {
	case r.looked && r.err == nil:
		switch {
		case r.last != nil && r.last.ID == e.ID:
			p.stored(r.f, r.last.Seq, true)
		case lastSeq(r.last) == e.Expect && r.duplicate:
			// The stream remembers an id whose message was purged: what is
			// published now is news again, under an id of its own.
			e.content++
			e.ID = ""
			p.send(r.f)
		case lastSeq(r.last) == e.Expect:
			p.doubt(r.f, errors.New("the stream's sequences are moving"))
		default:
			p.atWork()
			p.finish(r.f, &Conflict{Event: e, Last: r.last})
		}
	case r.err == nil && !r.ack.Duplicate:
		p.stored(r.f, r.ack.Sequence, false)
	case r.err == nil, isFence(r.err):
		p.look(ctx, r.f, r.err == nil)
	case isTooLarge(r.err):
		p.metrics.errors.Inc()
		p.atWork()
		p.finish(r.f, fmt.Errorf("publish to %s: %w: %w", e.Subject, ErrTooLarge, r.err))
	default:
		p.doubt(r.f, r.err)
	}
}

// look asks the stream's leader for the subject's last message; the answer
// comes back as a reply.
func (p *Publisher) look(ctx context.Context, f *flight, duplicate bool) {
	p.looks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		last, err := p.Last(ctx, f.events[f.next].Subject)
		p.replies <- reply{f: f, err: err, looked: true, duplicate: duplicate, last: last}
	})
}

func (p *Publisher) stored(f *flight, seq uint64, found bool) {
	e := f.events[f.next]
	e.Seq = seq
	p.metrics.stored(e)
	p.lastAck.Store(time.Now().UnixNano())
	if seq > p.acked.Load() {
		p.acked.Store(seq)
	}
	p.atWork()
	f.next++
	switch {
	case f.next == len(f.events):
		p.finish(f, nil)
	case found:
		p.finish(f, ErrFound)
	default:
		p.send(f)
	}
}

// atWork notes that the stream answers: whatever it says, it can be published to.
func (p *Publisher) atWork() {
	p.delay = minRetry
	if p.trouble.Swap(nil) != nil {
		p.log.Info("publishing again", "count", p.failed)
		p.failed = 0
	}
}

func (p *Publisher) doubt(f *flight, err error) {
	p.metrics.errors.Inc()
	p.failed++
	p.doubtful = append(p.doubtful, f)
	text := reason(err)
	if old := p.trouble.Swap(&text); old == nil || *old != text {
		p.log.Warn("publish failed, trying again", "err", text, "subject", f.events[f.next].Subject)
	}
}

func (p *Publisher) retry(timer *time.Timer) {
	if !p.conn.IsConnected() {
		timer.Reset(minRetry)
		return
	}
	list := p.doubtful
	p.doubtful = nil
	for _, f := range list {
		p.send(f)
	}
}

func (p *Publisher) finish(f *flight, err error) {
	p.release()
	f.done(err)
}

func (p *Publisher) release() {
	<-p.window
	p.metrics.pending.Dec()
}

// stop gives back what is still out. The client may yet answer; those answers
// find no flight.
func (p *Publisher) stop() {
	close(p.stopped)
	left := p.doubtful
	p.mu.Lock()
	p.closed = true
	for _, f := range p.flights {
		left = append(left, f)
	}
	clear(p.flights)
	p.mu.Unlock()
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

// reason is an error as an operator reads it, the same text for the same cause.
func reason(err error) string {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return "no stream takes the events: it was deleted, JetStream is off, or a cluster elects its leader"
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return "not connected to NATS"
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return "no answer from JetStream in " + ackTimeout.String() + " (no permission to publish or to receive answers, a very slow disk, or a store that failed: the server's log tells)"
	case errors.As(err, &api) && (api.ErrorCode == codeInsufficientResources || api.ErrorCode == codeStorageExceeded):
		return fmt.Sprintf("JetStream has no room left for events (%s, code %d): make room on its disk, raise its storage limit, or shorten the streams",
			api.Description, api.ErrorCode)
	case errors.As(err, &api):
		return fmt.Sprintf("JetStream refuses events: %s (code %d)", api.Description, api.ErrorCode)
	}
	return err.Error()
}

func lastSeq(s *Stored) uint64 {
	if s == nil {
		return 0
	}
	return s.Seq
}

func isFence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeWrongLastSequenceConstant)
}

func isTooLarge(err error) bool {
	if errors.Is(err, nats.ErrMaxPayload) {
		return true
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == codeMessageTooLarge
}
