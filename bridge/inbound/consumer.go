package inbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// ConsumerName is the name of the bridge's consumer on the inbound stream.
const ConsumerName = "bridge"

// Poster posts to the API. It is used concurrently; ctx ends with the message's
// age. [plaspy.Client] is the real one.
type Poster interface {
	Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
}

// Options configure a [Consumer]. Those that may be left out say so.
type Options struct {
	JetStream jetstream.JetStream
	Subjects  publisher.Subjects
	API       Poster
	Circuit   Circuit
	// Renew drops the token, so that the next post gets a new one. It is called
	// at most once a minute, after a 403. Nil: there is none to renew.
	Renew func()
	// Source gives the device's URL at the API, for ce-source. Nil: empty.
	Source func(deviceID string) string
	// Lease says which of several replicas consumes. Nil: this one.
	Lease Lease
	// Trace makes a span of each message that is in hand. Nil: none.
	Trace *trace.Tracer
	// Echo remembers what is posted. Optional.
	Echo *echo.Tracker

	Workers        int           // posts under way at once; 0: 16
	MaxAge         time.Duration // after which a message is a dead letter; 0: 24 h
	BackoffInitial time.Duration // 0: 500 ms
	BackoffMax     time.Duration // 0: 1 min
	// Grace is how long posts that are under way may still take when Run is
	// told to stop; 0: 15 s.
	Grace time.Duration
	// Progress is called every few seconds unless the consumer is stuck; one
	// that waits for its lease, or for NATS, is not. Nil: nobody is told.
	Progress func()

	Log        *slog.Logger          // required
	Registerer prometheus.Registerer // may be nil
}

// Consumer carries messages from the inbound stream to the API. It is safe for
// concurrent use, but for Run, which is called once.
type Consumer struct {
	opt      Options
	log      *slog.Logger
	metrics  metrics
	limits   limits
	trouble  troubles
	warnings limitedLog
	memory   memory
	demand   demand
	pending  atomic.Int64 // messages in the stream, as of a few seconds ago
	beat     atomic.Int64 // when the reader last did something, Unix nanoseconds

	mu        sync.Mutex
	renewed   time.Time        // when a token was last renewed because of a 403
	unsettled map[uint64]*item // outcomes that an earlier run could not record
	holding   bool             // this replica consumes
	current   *desk            // of the run under way, or nil
}

// New makes a consumer; it does nothing before [Consumer.Run].
func New(o Options) (*Consumer, error) {
	switch {
	case o.JetStream == nil, o.API == nil, o.Circuit == nil, o.Log == nil, o.Subjects == "":
		return nil, errors.New("inbound consumer needs JetStream, subjects, an API, a circuit and a log")
	case o.Workers < 0, o.MaxAge < 0, o.BackoffInitial < 0, o.BackoffMax < 0, o.Grace < 0:
		return nil, errors.New("inbound consumer's settings must not be negative")
	}
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
	or(&o.MaxAge, 24*time.Hour)
	or(&o.BackoffInitial, 500*time.Millisecond)
	or(&o.BackoffMax, time.Minute)
	or(&o.Grace, 15*time.Second)
	if o.Lease == nil {
		o.Lease = always{}
	}
	c := &Consumer{
		opt: o, log: o.Log, metrics: newMetrics(o.Registerer), limits: defaultLimits,
		unsettled: make(map[uint64]*item),
	}
	// A worker without a lane is a worker wasted.
	c.limits.hand = max(c.limits.hand, 4*o.Workers)
	c.limits.ackPending = AckPending(o.Workers)
	return c, nil
}

// AckPending is how many deliveries the server has to keep account of for a
// consumer with so many workers.
func AckPending(workers int) int {
	return max(defaultLimits.ackPending, 2*max(defaultLimits.hand, 4*workers))
}

// Run consumes until ctx ends, and then waits for the posts that are under way,
// at most Options.Grace. What is not finished by then stays in the stream. It
// returns nil; whatever goes wrong meanwhile is tried again, and told by
// [Consumer.Trouble].
func (c *Consumer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.gauge(ctx) })
	for ctx.Err() == nil {
		term, err := c.opt.Lease.Hold(ctx)
		if err != nil {
			return nil // ctx ended, which is how Run ends
		}
		c.serve(ctx, term)
		term.Release()
	}
	return nil
}

// serve consumes for as long as the lease is held.
func (c *Consumer) serve(ctx context.Context, term Term) {
	c.progress()
	c.hold(true)
	defer c.hold(false)
	pause := 100 * time.Millisecond
	for ctx.Err() == nil && term.Context.Err() == nil {
		began := time.Now()
		c.progress()
		err := c.consume(ctx, term)
		if ctx.Err() != nil || term.Context.Err() != nil {
			return
		}
		if time.Since(began) > 30*time.Second {
			pause = 100 * time.Millisecond
		}
		if errors.Is(err, errAgain) {
			c.log.Info("inbound consumer begins again", "err", err)
		} else {
			c.trouble.set(partStream, err)
			c.log.Warn("inbound consumer failed, trying again", "err", err, "delay", pause)
		}
		sleep(ctx, pause)
		pause = min(2*pause, 5*time.Second)
	}
}

// consume is one run: a consumer of its own on the stream, which delivers what
// is unfinished from the first message on, in order.
func (c *Consumer) consume(ctx context.Context, term Term) error {
	st, err := openStream(ctx, c.opt.JetStream, c.opt.Subjects.Inbound())
	if err != nil {
		return err
	}
	d := newDesk(c, st)
	d.valid = term.Valid
	if d.pulls, err = c.createConsumer(ctx, st); err != nil {
		return err
	}
	x, err := newExchange(c.opt.JetStream.Conn())
	if err != nil {
		return err
	}
	c.trouble.clear(partStream)
	posts, abort := context.WithCancel(term.Context)
	defer abort()
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(term.Context, func() { stop(errLease) })()
	d.posts, d.stop = posts, stop

	c.attach(d)
	var wg, books sync.WaitGroup
	books.Go(func() { d.keepBooks(x) })
	wg.Go(func() {
		if err := d.read(work); err != nil {
			stop(err)
		}
	})
	wg.Go(func() { d.keepGate(work) })
	wg.Go(func() { d.keepAlive(work) })
	for range c.opt.Workers {
		wg.Go(func() { d.work(work) })
	}
	<-work.Done()
	d.ended.Store(true)
	grace := time.AfterFunc(c.opt.Grace, abort)
	wg.Wait()
	close(d.settlings)
	books.Wait()
	grace.Stop()
	c.detach(d)
	c.deleteConsumer(term.Context, st)
	return context.Cause(work)
}

// createConsumer replaces whatever an earlier run left. A new consumer delivers
// every message that is still in the stream, in order and at once: nothing has
// to wait for the redelivery of what a dead process had in hand, and nothing
// newer can overtake it.
func (c *Consumer) createConsumer(ctx context.Context, st *stream) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := st.DeleteConsumer(ctx, ConsumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("delete consumer %s: %w", ConsumerName, err)
	}
	pulls, err := st.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       ConsumerName,
		Description:   "plaspy-bridge: posts to the API",
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       c.limits.ackWait,
		MaxDeliver:    -1, // the bridge decides what is given up, not the server
		MaxAckPending: c.limits.ackPending,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", ConsumerName, err)
	}
	return pulls, nil
}

// deleteConsumer hands everything in hand back at once. It is left to the next
// holder where the lease was lost, because the consumer may be that one's.
func (c *Consumer) deleteConsumer(ctx context.Context, st *stream) {
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := st.DeleteConsumer(ctx, ConsumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.log.Warn("inbound consumer stays behind; the next run replaces it", "err", err)
	}
}

// send posts a body to the endpoint of its kind.
func (c *Consumer) send(ctx context.Context, a message.Address, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	if a.Kind == message.Alert {
		return c.opt.API.Alerts(ctx, a.Device, body, o)
	}
	return c.opt.API.Locations(ctx, a.Device, body, o)
}

// outcome makes the outcome of a message.
func (c *Consumer) outcome(m *item, d message.Decision, t *trial) *message.Outcome {
	d.Tries, d.At, d.Trace = t.tries(), time.Now(), t.span.Inject
	w := message.Writer{Subjects: c.opt.Subjects, Source: c.opt.Source, MaxPayload: int(c.opt.JetStream.Conn().MaxPayload())}
	o, refused := w.Outcome(&m.Message, d)
	if refused != "" {
		c.warnings.warn(c.log, "Reply-To is not used", "reason", refused, "device_id", m.Address.Device, "seq", m.Seq)
	}
	return o
}

// renew asks for a new token after a 403, once a minute at most for all.
func (c *Consumer) renew() {
	c.mu.Lock()
	due := c.renewed.IsZero() || time.Since(c.renewed) >= time.Minute
	if due {
		c.renewed = time.Now()
	}
	c.mu.Unlock()
	if due && c.opt.Renew != nil {
		c.opt.Renew()
	}
}

func (c *Consumer) attach(d *desk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = d
}

// detach keeps what a run did but could not record for the next one.
func (c *Consumer) detach(d *desk) {
	left := d.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
	for _, m := range left {
		c.unsettled[m.Seq] = m
	}
	// What never comes again was finished by another replica. The oldest go.
	for len(c.unsettled) > 8*c.opt.Workers {
		delete(c.unsettled, slices.Min(slices.Collect(maps.Keys(c.unsettled))))
	}
}

// carry gives a message the outcome that this process found before, if there is
// one: it must not be posted again.
func (c *Consumer) carry(m *item) {
	if o := c.memory.recall(m); o != nil {
		m.outcome, m.counted = o, true
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.unsettled[m.Seq]
	if before == nil || !before.At.Equal(m.At) {
		return
	}
	delete(c.unsettled, m.Seq)
	m.outcome, m.counted = before.outcome, before.counted
}

func (c *Consumer) hold(holding bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = holding
}

// progress notes that the reader or whoever sets it up is at work.
func (c *Consumer) progress() { c.beat.Store(time.Now().UnixNano()) }

// stuck reports whether this replica should be consuming and does nothing.
func (c *Consumer) stuck() bool {
	c.mu.Lock()
	holding := c.holding
	c.mu.Unlock()
	return holding && time.Since(time.Unix(0, c.beat.Load())) > time.Minute
}

// told looks at the error of a message to the server that needs no answer: if
// it is lost, the server delivers again, and that is coped with.
func (c *Consumer) told(what string, err error) {
	if err != nil {
		c.log.Debug("could not tell the server", "reason", what, "err", err)
	}
}

// maxBytes is the size of a pull: never less than one message.
func (c *Consumer) maxBytes() int {
	return max(c.limits.bytes/2, 2*int(c.opt.JetStream.Conn().MaxPayload()))
}

// maxMessages is the length of a pull that may not say how many bytes it wants.
// Where the consumer is replicated, the server holds each message back until
// the others know of its delivery, but not the note with which it ends a pull
// that has a size (seen with nats-server 2.15.2): the note comes first, and what
// follows it finds nobody who still listens. Without a size there is no note.
func (c *Consumer) maxMessages() int {
	return max(1, c.limits.bytes/int(c.opt.JetStream.Conn().MaxPayload()))
}
