package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Leader reads single messages from the leader of one stream. The direct gets of
// the client library may be answered by a follower that lags, so they are not
// fit to decide from. A Leader is safe for concurrent use.
type Leader struct {
	js     jetstream.JetStream
	stream string
}

// NewLeader returns a reader of a stream.
func NewLeader(js jetstream.JetStream, stream string) *Leader {
	return &Leader{js: js, stream: stream}
}

// leaderTimeout is the longest that one read takes.
const leaderTimeout = 5 * time.Second

// Last returns the last message of a subject, or nil if there is none.
func (l *Leader) Last(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return l.get(ctx, getRequest{LastFor: subject})
}

// Next returns the first message at or after a sequence whose subject matches a
// filter, which may hold wildcards, or nil if there is none.
func (l *Leader) Next(ctx context.Context, filter string, from uint64) (*jetstream.RawStreamMsg, error) {
	return l.get(ctx, getRequest{Seq: max(from, 1), NextFor: filter})
}

// Exists reports whether the stream holds a message.
func (l *Leader) Exists(ctx context.Context, seq uint64) (bool, error) {
	m, err := l.get(ctx, getRequest{Seq: seq})
	return m != nil, err
}

// getRequest is the body of a STREAM.MSG.GET request.
type getRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

// getAnswer is the answer to it.
type getAnswer struct {
	Message *struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
	Error *jetstream.APIError `json:"error"`
}

// apiPrefix is the prefix of requests to JetStream, with a dot at its end.
func apiPrefix(js jetstream.JetStream) string {
	switch o := js.Options(); {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

func (l *Leader) get(ctx context.Context, request getRequest) (*jetstream.RawStreamMsg, error) {
	m, err := l.ask(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", l.stream, explain(err))
	}
	return m, nil
}

func (l *Leader) ask(ctx context.Context, request getRequest) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	reply, err := l.js.Conn().RequestWithContext(ctx, apiPrefix(l.js)+"STREAM.MSG.GET."+l.stream, body)
	if err != nil {
		return nil, err
	}
	var answer getAnswer
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, errors.New("the answer holds neither a message nor an error")
	}
	m := answer.Message
	raw := &jetstream.RawStreamMsg{Subject: m.Subject, Sequence: m.Seq, Data: m.Data, Time: m.Time}
	if len(m.Header) > 0 {
		if raw.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return nil, fmt.Errorf("headers of message %d: %w", m.Seq, err)
		}
	}
	return raw, nil
}
