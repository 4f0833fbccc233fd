package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
)

// Codes of the server for a message that a stream does not accept for its size,
// or for the size of its headers; see errors.json of nats-server.
const (
	codeTooLarge        = 10054
	codeHeadersTooLarge = 10097
)

// recorder stores outcomes: results and dead letters. It is used by one
// goroutine.
type recorder struct {
	x   *exchange
	log *slog.Logger
	// timeout is the longest that the server may take to answer a batch.
	timeout time.Duration
}

// record stores a batch of outcomes and sends the replies. The messages of a
// batch share their requests to the server. An outcome with an error is not
// recorded whole, and record can be called with it again: it goes on from the
// step that failed.
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
			if err := r.took(batch[i], answers[k], failed[k]); err != nil {
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

// took reads a stream's answer to the next publication of an outcome. One that
// the stream refused for its size is cut, and published again by the next round.
func (r *recorder) took(o *message.Outcome, answer *nats.Msg, err error) error {
	subject := o.Next().Subject
	var seq uint64
	if err == nil {
		seq, err = stored(answer.Data)
	}
	large, headers := tooLarge(err)
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

// tooLarge reports whether a publish failed for the message's size, and whether
// its headers alone are too large.
func tooLarge(err error) (large, headers bool) {
	if errors.Is(err, nats.ErrMaxPayload) {
		return true, false
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return false, false
	}
	return api.ErrorCode == codeTooLarge || api.ErrorCode == codeHeadersTooLarge, api.ErrorCode == codeHeadersTooLarge
}
