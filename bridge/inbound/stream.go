package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"plaspy-bridge/bridge/inbound/message"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrStream tells that the inbound stream cannot be consumed as it is.
var ErrStream = errors.New("inbound stream cannot be consumed")

// requestTimeout is how long one request to the server may take.
const requestTimeout = 5 * time.Second

// stream reads and deletes messages of the inbound stream beside the consumer.
// What is finished is gone from it: that is all the memory the bridge has of
// what it did, and it outlives every crash.
type stream struct {
	js   jetstream.JetStream
	name string
	jetstream.Stream
	// queue: an acknowledgement removes the message. Other streams are told to
	// delete it.
	queue      bool
	replicated bool // and with it every consumer
}

// openStream looks the stream up and checks that it can be worked on.
func openStream(ctx context.Context, js jetstream.JetStream, name string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", name, err)
	}
	cfg := st.CachedInfo().Config
	switch {
	case cfg.Retention == jetstream.InterestPolicy:
		// Without a consumer, and each run has its own, such a stream forgets
		// what nobody has seen yet.
		return nil, fmt.Errorf("%w: the retention of %s is interest, which loses messages; it has to be workqueue", ErrStream, name)
	case cfg.DenyDelete:
		return nil, fmt.Errorf("%w: %s denies deletion", ErrStream, name)
	}
	return &stream{js: js, name: name, Stream: st, queue: cfg.Retention == jetstream.WorkQueuePolicy, replicated: cfg.Replicas > 1}, nil
}

// storedMsg is a message as the stream's leader gives it.
type storedMsg struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`
}

// next reads the first message of a subject filter at or after a sequence, nil
// where there is none. It asks the stream's leader: a direct get may be
// answered by a replica that lags, and would show a message that is finished.
func (s *stream) next(ctx context.Context, filter string, from uint64) (*item, error) {
	got, err := s.get(ctx, map[string]any{"seq": max(from, 1), "next_by_subj": filter})
	if got == nil || err != nil {
		return nil, err
	}
	m := &item{Message: message.Message{Seq: got.Seq, At: got.Time, Subject: got.Subject, Body: got.Data}}
	if len(got.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(got.Header); err != nil {
			return nil, fmt.Errorf("read headers of message %d: %w", got.Seq, err)
		}
	}
	return m, nil
}

// exists reports whether a message is still in the stream.
func (s *stream) exists(ctx context.Context, seq uint64) (bool, error) {
	got, err := s.get(ctx, map[string]any{"seq": seq})
	return got != nil, err
}

func (s *stream) get(ctx context.Context, request map[string]any) (*storedMsg, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	prefix := strings.TrimSuffix(s.js.Options().APIPrefix, ".")
	if prefix == "" {
		prefix = strings.TrimSuffix(jetstream.DefaultAPIPrefix, ".")
	}
	reply, err := s.js.Conn().RequestWithContext(ctx, prefix+".STREAM.MSG.GET."+s.name, body)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", s.name, err)
	}
	var answer struct {
		Message *storedMsg          `json:"message"`
		Error   *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return nil, fmt.Errorf("read stream %s: %w", s.name, err)
	}
	switch {
	case answer.Error == nil:
		return answer.Message, nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	}
	return nil, fmt.Errorf("read stream %s: %w", s.name, answer.Error)
}

// remove deletes a message; that it is gone already is no error.
func (s *stream) remove(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := s.DeleteMsg(ctx, seq)
	if err == nil {
		return nil
	}
	if there, lookErr := s.exists(ctx, seq); lookErr == nil && !there {
		return nil
	}
	return fmt.Errorf("delete message %d: %w", seq, err)
}
