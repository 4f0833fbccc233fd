package inbound

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// exchange sends requests to the server in batches. One request after the other
// costs a few context switches each, which together are as much as a post.
// It is used by one goroutine.
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

// errUnanswered tells that the server did not answer in time.
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
