package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/lane"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// maxRemembered is the size of the largest outcome that is remembered whole once
// it is recorded.
const maxRemembered = 8 << 10

// verdictNote is the Note of a [lane.Verdict]: the decision to record.
type verdictNote struct {
	kind       message.Kind
	decision   message.Decision
	outcome    *message.Outcome // of a posted message; that of a dead letter is made from the message when it is recorded
	connection uint64           // on which the message was read
	counted    bool             // in the metrics
	again      bool             // recording it has failed once
}

// recordJob is a message with an outcome that is being recorded.
type recordJob struct {
	outcome    *message.Outcome // nil if there is nothing to store
	seq        uint64
	at         time.Time
	connection uint64
	again      bool       // an earlier try failed
	done       chan error // receives the result; buffered
}

// recorder stores outcomes and removes their messages from the inbound stream. One
// goroutine serves all workers, so that jobs that wait at the same time share their
// requests to the server. Results and dead letters have a recorder each, because one
// of their streams may not answer.
type recorder struct {
	x       *exchange
	queue   *queue
	log     *slog.Logger
	timeout time.Duration
	jobs    chan *recordJob
}

func (c *Consumer) newRecorder(q *queue) (*recorder, error) {
	x, err := newExchange(c.opt.JetStream.Conn(), c.opt.Workers+1)
	if err != nil {
		return nil, err
	}
	return &recorder{x: x, queue: q, log: c.log, timeout: c.opt.recording, jobs: make(chan *recordJob, c.opt.Workers)}, nil
}

// run records until the channel is closed.
func (r *recorder) run(ctx context.Context) {
	defer r.x.close()
	batch := make([]*recordJob, 0, cap(r.jobs)+1)
	for s := range r.jobs {
		batch = append(batch[:0], s)
		for len(r.jobs) > 0 && len(batch) < cap(batch) {
			batch = append(batch, <-r.jobs)
		}
		errs := r.store(ctx, batch)
		r.remove(ctx, batch, errs)
		for i, err := range errs {
			batch[i].done <- err
		}
	}
}

// store stores the outcomes of a batch of jobs. It returns an error for each job, nil
// if its outcome is stored.
func (r *recorder) store(ctx context.Context, batch []*recordJob) []error {
	errs := make([]error, len(batch))
	outcomes, of := make([]*message.Outcome, 0, len(batch)), make([]int, 0, len(batch))
	for i, s := range batch {
		if s.outcome != nil {
			outcomes, of = append(outcomes, s.outcome), append(of, i)
		}
	}
	for k, err := range r.record(ctx, outcomes) {
		errs[of[k]] = err
	}
	return errs
}

// remove deletes the messages with a stored outcome from the inbound stream, and waits
// for the server's answers. It sets the errors of the messages that are still there.
func (r *recorder) remove(ctx context.Context, batch []*recordJob, errs []error) {
	msgs, of := make([]*nats.Msg, 0, len(batch)), make([]int, 0, len(batch))
	for i, s := range batch {
		if errs[i] != nil {
			continue
		}
		if s.again || !r.queue.certain(s.connection) {
			there, err := r.queue.holds(ctx, s.seq, s.at)
			if errs[i] = err; err != nil || !there {
				continue
			}
		}
		msgs, of = append(msgs, r.queue.removal(s.seq)), append(of, i)
	}
	answers, failed := r.x.ask(ctx, msgs, r.timeout)
	for k, i := range of {
		errs[i] = r.queue.removed(ctx, batch[i], answers[k], failed[k])
	}
}

// record stores a batch of outcomes and sends the replies. The messages of a
// batch share their requests to the server. If an outcome has an error,
// record can be called with it again and goes on from the step that failed.
func (r *recorder) record(ctx context.Context, batch []*message.Outcome) []error {
	errs := make([]error, len(batch))
	for {
		msgs, of := make([]*nats.Msg, 0, len(batch)), make([]int, 0, len(batch))
		for i, o := range batch {
			if p := o.Next(); p != nil && errs[i] == nil {
				msgs, of = append(msgs, &nats.Msg{Subject: p.Subject, Header: p.Header, Data: p.Body}), append(of, i)
			}
		}
		if len(msgs) == 0 {
			break
		}
		answers, failed := r.x.ask(ctx, msgs, r.timeout)
		for k, i := range of {
			if err := r.confirm(batch[i], answers[k], failed[k]); err != nil {
				errs[i] = fmt.Errorf("publish to %s: %w", msgs[k].Subject, err)
			}
		}
	}
	for i, o := range batch {
		if p := o.Reply(); p != nil && errs[i] == nil {
			if err := r.x.nc.PublishMsg(&nats.Msg{Subject: p.Subject, Header: p.Header, Data: p.Body}); err != nil {
				errs[i] = fmt.Errorf("publish result to %s: %w", p.Subject, err)
				continue
			}
			o.Replied()
		}
	}
	return errs
}

// confirm reads a stream's answer to the next publication of an outcome. A publication
// that the stream refused for its size is shortened, and published again in the next
// round of record.
func (r *recorder) confirm(o *message.Outcome, answer *nats.Msg, err error) error {
	subject := o.Next().Subject
	var seq uint64
	if err == nil {
		seq, err = stored(answer.Data)
	}
	large, headers := publisher.TooLarge(err)
	switch {
	case large && o.TooLarge(headers):
		r.log.Warn("message is too large for its stream, shortening it", "err", err, "subject", subject)
	case err != nil:
		return err
	default:
		o.Stored(seq)
	}
	return nil
}

// stored reads a stream's answer to a publish: the sequence of the message.
func stored(data []byte) (uint64, error) {
	var ack struct {
		Stream string              `json:"stream"`
		Seq    uint64              `json:"seq"`
		Error  *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("read acknowledgement: %w", err)
	}
	switch {
	case ack.Error != nil:
		return 0, ack.Error
	case ack.Stream == "":
		// Some subscriber answered, and no stream took it.
		return 0, jetstream.ErrInvalidJSAck
	}
	return ack.Seq, nil
}

// record records the verdict on a message: it hands a job to the recorder and waits for
// its result.
func (r *pass) record(a lane.Action) {
	c, lm, t, v := r.c, a.Message, triesOf(a.Message), a.Verdict.Note.(*verdictNote)
	s := &recordJob{outcome: v.outcome, seq: lm.Seq, at: lm.At, connection: v.connection, again: v.again, done: make(chan error, 1)}
	result := resultPosted
	if !a.Verdict.Posted {
		result = resultDead
		m := lm.Content.(*item)
		if m.outcome == nil {
			m.outcome = c.outcome(m, v.decision, t)
		}
		s.outcome, s.connection = m.outcome, m.connection
	}
	if a.Again && s.outcome != nil {
		s.outcome.Restart()
		s.outcome.Replied()
	}
	rec := r.results
	if !a.Verdict.Posted {
		rec = r.letters
	}
	settle := c.settleSpan(t)
	rec.jobs <- s
	err := <-s.done
	if err != nil {
		v.again = true
		settle.End("not_recorded")
		if c.trouble.set(partStore, err) {
			c.log.Warn("could not record the outcome of an inbound message, retrying", "err", err, "seq", lm.Seq, "delay", c.opt.pause)
		}
	} else {
		settle.End("")
		c.trouble.clear(partStore)
		if !v.counted && !a.Again {
			c.metrics.count(v.kind, result)
			v.counted = true
		}
		if v.outcome != nil && v.outcome.Size() > maxRemembered {
			v.outcome = nil
		}
		t.endSpan(result, "")
	}
	r.do(func(l *lane.Lanes) { l.Recorded(time.Now(), lm, err) })
}

// outcome makes the outcome of a decision.
func (c *Consumer) outcome(m *item, d message.Decision, t *tries) *message.Outcome {
	d.Trace = t.span.Inject
	w := message.Writer{Subjects: c.opt.Subjects, Source: c.opt.Source, MaxPayload: int(c.opt.JetStream.Conn().MaxPayload())}
	o, refused := w.Outcome(&m.Message, d)
	if refused != "" {
		c.warnings.warn(c.log, "Reply-To is not used", "reason", refused, "device_id", m.Address.Device, "seq", m.Seq)
	}
	return o
}

// exchange sends requests to the server in batches. Single requests cost a few context
// switches each, together as much as a post. It is used by one goroutine.
type exchange struct {
	nc     *nats.Conn
	sub    *nats.Subscription
	in     chan *nats.Msg // the answers
	prefix string         // of the reply subjects
	serial uint64
}

// newExchange returns an exchange for batches of at most so many messages.
func newExchange(nc *nats.Conn, most int) (*exchange, error) {
	inbox := nc.NewInbox()
	x := &exchange{nc: nc, in: make(chan *nats.Msg, 2*most), prefix: inbox + "."}
	var err error
	// A channel, because a synchronous subscription reports the absence of
	// responders as an error, without the message that had none.
	if x.sub, err = nc.ChanSubscribe(inbox+".*", x.in); err != nil {
		return nil, fmt.Errorf("subscribe for answers: %w", err)
	}
	return x, nil
}

func (x *exchange) close() {
	// The connection may be gone, and the subscription with it.
	_ = x.sub.Unsubscribe()
}

// errUnanswered means that the server did not answer in time.
var errUnanswered = errors.New("no answer from NATS")

// ask sends messages and gathers their answers, in the same order. A message
// without an answer has an error instead.
func (x *exchange) ask(ctx context.Context, msgs []*nats.Msg, timeout time.Duration) ([]*nats.Msg, []error) {
	answers, errs := make([]*nats.Msg, len(msgs)), make([]error, len(msgs))
	first, open := x.serial, 0
	for i, m := range msgs {
		m.Reply = x.prefix + strconv.FormatUint(x.serial, 10)
		x.serial++
		if errs[i] = x.nc.PublishMsg(m); errs[i] == nil {
			errs[i] = errUnanswered
			open++
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for open > 0 {
		var answer *nats.Msg
		select {
		case answer = <-x.in:
		case <-ctx.Done():
			return answers, errs
		}
		serial, err := strconv.ParseUint(strings.TrimPrefix(answer.Subject, x.prefix), 10, 64)
		i := serial - first
		if err != nil || serial < first || i >= uint64(len(msgs)) || !errors.Is(errs[i], errUnanswered) {
			continue // too late: its message was given up
		}
		open--
		answers[i], errs[i] = answer, nil
		if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
			answers[i], errs[i] = nil, nats.ErrNoResponders
		}
	}
	return answers, errs
}
