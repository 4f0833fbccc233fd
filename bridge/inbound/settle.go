package inbound

import (
	"errors"
	"fmt"
	"time"

	"plaspy-bridge/bridge/inbound/message"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// settleTimeout is how long the server may take to answer a batch.
const settleTimeout = 3 * time.Second

// ackBody is the acknowledgement of a message; see NATS ADR-15.
var ackBody = []byte("+ACK")

// settling is a message whose outcome is to be recorded.
type settling struct {
	m    *item
	done chan error // has room for the answer
}

// settle records an outcome: the result or the dead letter is stored before the
// message leaves the inbound stream. Workers that wait here at the same time
// share their requests to the server.
func (d *desk) settle(m *item) error {
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
	outcomes := make([]*message.Outcome, len(batch))
	for i, s := range batch {
		outcomes[i] = s.m.outcome
	}
	r := recorder{x: x, log: d.c.log, timeout: settleTimeout}
	errs := r.record(d.posts, outcomes)
	d.finishAll(x, batch, errs)
	return errs
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
		errs[i] = d.stream.remove(d.posts, s.m.Seq)
	}
	_, failed := x.ask(d.posts, msgs, settleTimeout)
	for k, i := range of {
		if failed[k] == nil {
			continue
		}
		// The consumer may be gone; the stream is asked instead.
		if err := d.stream.remove(d.posts, batch[i].m.Seq); err != nil {
			errs[i] = errors.Join(fmt.Errorf("acknowledge message %d: %w", batch[i].m.Seq, failed[k]), err)
		}
	}
}

// deliveryOf reads what the reader may replace.
func (d *desk) deliveryOf(m *item) jetstream.Msg {
	d.mu.Lock()
	defer d.mu.Unlock()
	return m.delivery
}
