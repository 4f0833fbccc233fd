package inbound

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth/backoff"
	"plaspy-bridge/bridge/inbound/echo"
	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher"
)

// Poster posts to the API. It is used concurrently; ctx is cancelled if the post
// is not to be sent any more. [plaspy.Client] is the real one.
type Poster interface {
	Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
	Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error)
}

// Seat is the right to post, which one replica has at a time. Group of package replica
// is the real one.
type Seat interface {
	// AwaitPosts blocks until this replica has the seat. The context that it
	// returns is cancelled when no further post may begin. It returns an error only if
	// ctx is cancelled first.
	AwaitPosts(ctx context.Context) (held context.Context, err error)
	// Posting reports whether a post may begin now. It looks at the clock.
	Posting() bool
	// ReleasePosts gives the seat back, after the posts that were sent are recorded or
	// the grace is over.
	ReleasePosts()
}

// Circuit decides whether the API is down, and lets single tries through until it
// is back. It is used concurrently. [plaspy.Circuit] is the real one.
type Circuit interface {
	Allow(now time.Time) (ok bool, at time.Time)
	Report(device string, err error)
	State() plaspy.CircuitState
}

// Directory knows the devices of the account.
type Directory interface {
	// Has reports whether the API's device list, just read again, has a device. An
	// error means that the list could not be read.
	Has(ctx context.Context, deviceID string) (bool, error)
}

// Options configure a [Consumer]. Optional fields are marked.
type Options struct {
	JetStream jetstream.JetStream
	Subjects  publisher.Subjects
	API       Poster
	Circuit   Circuit
	// Renew drops the token, so that the next post gets a new one. It is called
	// at most once a minute, after the API refused a post because of its token or
	// with 403. Optional.
	Renew func()
	// Source gives the device's URL at the API, for ce-source. Optional.
	Source func(deviceID string) string
	// Seat decides which replica posts. Nil means that this is the only one.
	Seat Seat
	// Directory confirms that a device is gone if something in front of the API
	// says so. Optional.
	Directory Directory
	// Trace makes a span of each message that is worked on. Optional.
	Trace *trace.Tracer
	// Reader reads the bodies of messages. Its zero value reads the forms of the
	// contract.
	Reader message.Reader
	// Echo remembers the locations that are posted. Optional.
	Echo *echo.Tracker

	Workers        int           // posts in flight at once; 0 means 16
	MaxAge         time.Duration // a message of this age is dead-lettered; 0 means 24 h
	BackoffInitial time.Duration // 0 means 500 ms
	BackoffMax     time.Duration // 0 means 1 min
	// Grace is how long posts that were sent may take, and the recording of their
	// outcomes, after Run's context is cancelled; 0 means 15 s.
	Grace time.Duration
	// Progress is called every few seconds unless the consumer is stuck. A
	// consumer that waits for its seat, or for NATS, is not stuck. Optional.
	Progress func()

	// patience is the longest wait that is spent with a message in memory and its
	// span open; 0 means 5 s.
	patience time.Duration
	// request and recording are the longest that the server may take to answer one request,
	// and a batch of outcomes; 0 means 5 s and 3 s.
	request, recording time.Duration
	// pause is the wait between two tries to record an outcome; 0 means 1 s.
	pause time.Duration
	// now is the clock that the age of messages is measured by; a test replaces it.
	now func() time.Time

	Log        *slog.Logger          // required
	Registerer prometheus.Registerer // may be nil
}

// limits of the memory that the consumer uses.
const (
	maxMessages = 2048     // messages in memory
	maxBytes    = 32 << 20 // of those messages
	maxRecent   = 1024     // outcomes that are remembered once they are recorded
)

// Consumer posts the messages of the inbound stream to the API. It is safe for
// concurrent use, but Run is called once.
type Consumer struct {
	opt      Options
	log      *slog.Logger
	metrics  metrics
	trouble  troubles
	warnings limitedLog
	load     load
	pending  atomic.Int64 // messages in the stream, as of a few seconds ago
	beat     atomic.Int64 // when the reader last did something, in Unix nanoseconds
	holding  atomic.Bool  // this replica posts
	leader   atomic.Bool  // only the stream's leader is asked for messages

	mu      sync.Mutex
	lanes   *lane.Lanes        // of the present pass; its record of outcomes outlives the pass
	renewed time.Time          // when a token was last renewed because of an answer
	batches map[string]*batch  // with progress that could not be stored, by own id
	bucket  jetstream.KeyValue // has the progress of batches; nil until it is opened
}

// New returns a consumer. It does nothing before [Consumer.Run].
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
	or(&o.patience, 5*time.Second)
	or(&o.request, 5*time.Second)
	or(&o.recording, 3*time.Second)
	or(&o.pause, time.Second)
	if o.now == nil {
		o.now = time.Now
	}
	if o.Seat == nil {
		o.Seat = alone{}
	}
	return &Consumer{opt: o, log: o.Log, metrics: newMetrics(o.Registerer), lanes: lane.New(o.limits()), batches: make(map[string]*batch)}, nil
}

func (o *Options) limits() lane.Limits {
	return lane.Limits{
		Workers: o.Workers, Messages: max(maxMessages, 4*o.Workers), Bytes: maxBytes, MaxAge: o.MaxAge,
		Initial: o.BackoffInitial, Max: o.BackoffMax, Patience: o.patience, Pause: o.pause, Recent: maxRecent,
	}
}

// tooOld reports whether a message has reached the age at which it is given up.
func (o *Options) tooOld(m *item) bool { return o.now().Sub(m.At) >= o.MaxAge }

// alone is the seat of the only replica.
type alone struct{}

// AwaitPosts returns at once.
func (alone) AwaitPosts(ctx context.Context) (context.Context, error) {
	return context.WithoutCancel(ctx), ctx.Err()
}

// Posting is always true.
func (alone) Posting() bool { return true }

// ReleasePosts does nothing.
func (alone) ReleasePosts() {}

// Run consumes until ctx is cancelled. It then waits, at most Options.Grace, until
// the posts that were sent are answered and recorded. Other messages stay in the
// stream. Run tries again after every failure, and [Consumer.Trouble] returns the last
// one.
func (c *Consumer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.gauge(ctx) })
	for ctx.Err() == nil {
		held, err := c.opt.Seat.AwaitPosts(ctx)
		if err != nil {
			return // ctx is cancelled
		}
		c.serve(ctx, held)
		c.opt.Seat.ReleasePosts()
	}
}

// serve runs one pass after another while this replica has the seat.
func (c *Consumer) serve(ctx, held context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(held, cancel)()
	c.beats()
	c.holding.Store(true)
	defer func() {
		c.holding.Store(false)
		// Without the seat, errors of this replica do not keep messages from being posted.
		c.trouble.clear(partStream)
		c.trouble.clear(partStore)
	}()
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		c.beats()
		err := c.consume(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 30*time.Second {
			n = 0
		}
		pause := backoff.Delay(100*time.Millisecond, 5*time.Second, n)
		if errors.Is(err, errIndirect) {
			c.leader.Store(true)
		}
		if errors.Is(err, errAgain) || errors.Is(err, errIndirect) {
			c.log.Info("reading the inbound stream again from its first message", "err", err)
		} else {
			c.trouble.set(partStream, err)
			c.log.Warn("inbound consumer failed, retrying", "err", err, "delay", pause)
		}
		sleep(ctx, pause)
	}
}

// renew asks for a new token, once a minute at most for all messages.
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

// beats notes that the reader is at work.
func (c *Consumer) beats() { c.beat.Store(time.Now().UnixNano()) }

// stuck reports whether this replica should be consuming and does nothing.
func (c *Consumer) stuck() bool {
	return c.holding.Load() && time.Since(time.Unix(0, c.beat.Load())) > time.Minute
}

// sleep waits, and returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Needs lists the permissions that a [Consumer] needs.
func Needs(s publisher.Subjects) []publisher.Permission {
	const (
		posting = "nothing inbound is posted"
		results = "no result is stored, and what was posted is posted again"
		dead    = "an inbound message that cannot be posted blocks its device"
	)
	in := s.Inbound()
	direct := publisher.Request("DIRECT.GET", in, "reading inbound messages takes a request for each")
	direct.Optional = true
	arrivals := publisher.Permission{
		Subscribe: s.InboundAll(), Try: s.InLocation(publisher.Absent), Optional: true,
		Why: "the bridge looks for inbound messages ten times a second, and the first one after a pause waits up to a second",
	}
	all := []publisher.Permission{
		publisher.Request("STREAM.INFO", in, posting),
		publisher.Request("STREAM.INFO", s.Results(), results),
		publisher.Request("STREAM.INFO", s.DeadLetters(), dead),
		publisher.Request("STREAM.MSG.GET", in, posting),
		direct, arrivals,
		{Publish: "$JS.API.STREAM.MSG.DELETE." + in, Why: "messages that were posted stay in the stream, and are posted again"},
		{Publish: s.DeadLetterUnknown(), Why: dead},
	}
	for _, kind := range []string{"location", "alert"} {
		all = append(all, publisher.Permission{Publish: s.Result(kind, "*"), Why: results}, publisher.Permission{Publish: s.DeadLetter(kind, "*"), Why: dead})
	}
	return all
}
