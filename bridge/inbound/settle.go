package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// settleTimeout is how long the server may take to answer a batch.
const settleTimeout = 3 * time.Second

// ackBody is the acknowledgement of a message; see NATS ADR-15.
var ackBody = []byte("+ACK")

// settling is a message whose outcome is to be recorded.
type settling struct {
	m    *message
	done chan error // has room for the answer
}

// settle records an outcome: the result or the dead letter is stored before the
// message leaves the inbound stream. Workers that wait here at the same time
// share their requests to the server.
func (d *desk) settle(m *message) error {
	s := &settling{m, make(chan error, 1)}
	d.settlings <- s
	return <-s.done
}

// keepBooks records what the workers settle, until there are none left.
func (d *desk) keepBooks(x *exchange) {
	defer x.close()
	batch := make([]*settling, 0, cap(d.settlings)+1)
	for s := range d.settlings {
		batch = append(batch[:0], s)
		for len(d.settlings) > 0 && len(batch) < cap(batch) {
			batch = append(batch, <-d.settlings)
		}
		for i, err := range d.record(x, batch) {
			batch[i].done <- err
		}
	}
}

// record does a batch: stores, publishes to Reply-To, acknowledges.
func (d *desk) record(x *exchange, batch []*settling) []error {
	errs := make([]error, len(batch))
	d.storeAll(x, batch, errs)
	for i, s := range batch {
		o := s.m.outcome
		if errs[i] != nil || o.reply == nil {
			continue
		}
		if err := d.c.opt.JetStream.Conn().PublishMsg(o.reply); err != nil {
			errs[i] = fmt.Errorf("publish result to %s: %w", o.reply.Subject, err)
			continue
		}
		o.reply = nil
	}
	d.finishAll(x, batch, errs)
	return errs
}

// storeAll stores results and dead letters.
func (d *desk) storeAll(x *exchange, batch []*settling, errs []error) {
	msgs, of := make([]*nats.Msg, 0, len(batch)), make([]int, 0, len(batch))
	for i, s := range batch {
		if !s.m.outcome.stored {
			msgs, of = append(msgs, s.m.outcome.main), append(of, i)
		}
	}
	answers, failed := x.ask(d.posts, msgs, settleTimeout)
	for k, i := range of {
		o := batch[i].m.outcome
		err := failed[k]
		if err == nil {
			err = pubError(answers[k].Data)
		}
		if tooBig(err) {
			err = d.storeShortened(o)
		}
		if err != nil {
			errs[i] = fmt.Errorf("publish to %s: %w", o.main.Subject, err)
			continue
		}
		o.stored = true
	}
}

// pubError reads the answer to a publish.
func pubError(data []byte) error {
	var ack struct {
		Stream string              `json:"stream"`
		Error  *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return fmt.Errorf("read acknowledgement: %w", err)
	}
	switch {
	case ack.Error != nil:
		return ack.Error
	case ack.Stream == "":
		// Some subscriber answered, and no stream took it.
		return jetstream.ErrInvalidJSAck
	}
	return nil
}

// codeTooBig is the server's for a message beyond its stream's limit, see its
// errors.json.
const codeTooBig = 10054

func tooBig(err error) bool {
	if errors.Is(err, nats.ErrMaxPayload) {
		return true
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == codeTooBig
}

func (d *desk) storeShortened(o *outcome) error {
	js := d.c.opt.JetStream
	d.c.log.Error("message is too large for its stream, its body is cut off", "subject", o.main.Subject)
	shorten(o.main, js.Conn().MaxPayload())
	ctx, cancel := context.WithTimeout(d.posts, settleTimeout)
	defer cancel()
	o.main.Reply = ""
	_, err := js.PublishMsg(ctx, o.main)
	return err
}

// finishAll takes messages whose outcome is stored out of the inbound stream,
// and waits until the server says that they are.
func (d *desk) finishAll(x *exchange, batch []*settling, errs []error) {
	msgs, of := make([]*nats.Msg, 0, len(batch)), make([]int, 0, len(batch))
	for i, s := range batch {
		if errs[i] != nil {
			continue
		}
		if delivery := d.deliveryOf(s.m); delivery != nil && d.stream.queue {
			msgs, of = append(msgs, &nats.Msg{Subject: delivery.Reply(), Data: ackBody}), append(of, i)
			continue
		}
		errs[i] = d.stream.remove(d.posts, s.m.seq)
	}
	_, failed := x.ask(d.posts, msgs, settleTimeout)
	for k, i := range of {
		if failed[k] == nil {
			continue
		}
		// The consumer may be gone; the stream is asked instead.
		if err := d.stream.remove(d.posts, batch[i].m.seq); err != nil {
			errs[i] = errors.Join(fmt.Errorf("acknowledge message %d: %w", batch[i].m.seq, failed[k]), err)
		}
	}
}

// deliveryOf reads what the reader may replace.
func (d *desk) deliveryOf(m *message) jetstream.Msg {
	d.mu.Lock()
	defer d.mu.Unlock()
	return m.delivery
}
