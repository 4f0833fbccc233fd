package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// errStream means that the inbound stream cannot be consumed as it is.
var errStream = errors.New("inbound stream cannot be consumed")

// errAgain ends a pass: the stream is not the one that was read so far.
var errAgain = errors.New("the stream was changed")

const (
	scanMessages = 256     // in one read of the stream
	scanLeader   = 32      // in one read that asks for each message
	scanBytes    = 4 << 20 // of the messages of one read
)

// item is one inbound message in memory. It is the Content of a [lane.Message], and
// wraps the [message.Message] with the state of its posts.
type item struct {
	message.Message
	// connection is the number of the connection on which the message was read.
	connection uint64
	// posts is read from the body before the first post.
	posts *message.Posts
	// outcome is that of a dead letter that is being recorded, else nil.
	outcome *message.Outcome
}

// queue is the inbound stream. A message is deleted when its outcome is recorded, so
// that the stream holds everything that a crash must not lose.
//
// Every read shows the state of the stream's leader. If the stream has one
// replica, that replica answers direct gets, many messages for one request.
// Otherwise a follower or a mirror may answer a direct get. It may lag and show
// finished messages, so the leader is asked for each message instead.
type queue struct {
	js       jetstream.JetStream
	subjects publisher.Subjects
	name     string
	api      string // prefix of the API's subjects, with a dot
	created  time.Time
	direct   bool
	timeout  time.Duration // of one request to the server
	changed  atomic.Bool   // another stream has its name, or it lost messages
}

// state is the part of a stream's state that matters here.
type state struct {
	last     uint64 // the sequence of the stream's newest message
	messages uint64
}

// errIndirect means that the stream itself does not answer direct gets: this user
// may not send them, or a mirror answers instead.
var errIndirect = errors.New("direct gets are not answered by the stream")

// openQueue looks the stream up and checks that it can be consumed. With leader
// set, only the stream's leader is asked for messages.
func openQueue(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, leader bool, timeout time.Duration) (*queue, error) {
	q := &queue{js: js, subjects: subjects, name: subjects.Inbound(), api: publisher.APIPrefix(js), timeout: timeout}
	info, err := q.info(ctx)
	if err != nil {
		return nil, err
	}
	switch cfg := info.Config; {
	case cfg.Retention == jetstream.InterestPolicy:
		// The bridge has no consumer, so such a stream drops every message.
		return nil, fmt.Errorf("%w: the retention of %s is interest, which loses messages; it has to be workqueue", errStream, q.name)
	case cfg.DenyDelete:
		return nil, fmt.Errorf("%w: %s denies deletion", errStream, q.name)
	}
	q.created, q.direct = info.Created, directly(info.Config) && !leader
	return q, nil
}

// directly reports whether direct gets show the state of the stream's leader.
func directly(cfg jetstream.StreamConfig) bool { return cfg.AllowDirect && cfg.Replicas <= 1 }

func (q *queue) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	st, err := q.js.Stream(ctx, q.name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", q.name, err)
	}
	return st.CachedInfo(), nil
}

// look returns the state of the stream, and [errAgain] if it is another stream
// than before.
func (q *queue) look(ctx context.Context) (state, error) {
	info, err := q.info(ctx)
	if err != nil {
		return state{}, err
	}
	if !info.Created.Equal(q.created) || q.direct && !directly(info.Config) {
		return state{}, q.again("it was recreated, or its settings changed")
	}
	return state{last: info.State.LastSeq, messages: info.State.Msgs}, nil
}

// scan reads the next messages in stream order from a sequence on. It returns the
// sequence through which the stream was read. last is the stream's last sequence.
func (q *queue) scan(ctx context.Context, from, last uint64) (list []*item, through uint64, err error) {
	if q.direct {
		list, more, err := q.getBatch(ctx, "", from, scanMessages)
		if err != nil && !errors.Is(err, errIndirect) && ctx.Err() == nil {
			if _, leaderErr := q.get(ctx, request{Seq: from, Next: ">"}); leaderErr == nil {
				err = fmt.Errorf("%w: %w", errIndirect, err)
			}
		}
		if len(list) > 0 {
			through = list[len(list)-1].Seq
		}
		if !more {
			through = max(through, last)
		}
		return list, through, err
	}
	to := min(last, from+scanLeader-1)
	if list, err = q.getRange(ctx, from, to); err != nil || len(list) > 0 {
		return list, to, err
	}
	// Nothing is there: the next message marks the end of the gap.
	m, err := q.get(ctx, request{Seq: to + 1, Next: ">"})
	if m == nil || err != nil {
		return nil, last, err
	}
	return []*item{m}, m.Seq, nil
}

// find reads messages of one device in a range of sequences. An empty token stands for
// the messages that name no device. It returns the sequence through which the range
// was read.
func (q *queue) find(ctx context.Context, token string, from, to uint64, most int) (list []*item, through uint64, err error) {
	through = from - 1
	for through < to && len(list) == 0 && ctx.Err() == nil {
		var found []*item
		switch {
		case from == to && !q.direct:
			found, err = q.getRange(ctx, from, to)
			through = to
		case from == to, token != "" && q.direct:
			found, through, err = q.getBatchTo(ctx, q.filter(token, from == to), through+1, to, most)
		case token == "":
			found, through, err = q.scan(ctx, through+1, to)
		default:
			found, through, err = q.getNextTo(ctx, q.subjects.InboundOf(token), through+1, to)
		}
		if err != nil {
			return nil, 0, err
		}
		for _, m := range found {
			if m.Seq <= to && m.Address.Token == token {
				list = append(list, m)
			}
		}
	}
	return list, min(through, to), ctx.Err()
}

// filter is the subject filter of a device's messages; one message needs none.
func (q *queue) filter(token string, one bool) string {
	if one {
		return ""
	}
	return q.subjects.InboundOf(token)
}

// getBatchTo is getBatch up to a sequence, and returns the sequence through which the
// stream was read.
func (q *queue) getBatchTo(ctx context.Context, filter string, from, to uint64, most int) ([]*item, uint64, error) {
	list, more, err := q.getBatch(ctx, filter, from, most)
	if err != nil || !more || len(list) == 0 || from == to {
		return list, to, err
	}
	return list, list[len(list)-1].Seq, nil
}

// getNextTo asks the leader for the next message of a filter up to a sequence.
func (q *queue) getNextTo(ctx context.Context, filter string, from, to uint64) ([]*item, uint64, error) {
	m, err := q.get(ctx, request{Seq: from, Next: filter})
	if m == nil || err != nil {
		return nil, to, err
	}
	return []*item{m}, m.Seq, nil
}

// request is the body of the server's requests for messages; see NATS
// ADR-31.
type request struct {
	Seq      uint64 `json:"seq"`
	Next     string `json:"next_by_subj,omitempty"`
	Batch    int    `json:"batch,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
}

// Headers that the server adds to the answer of a direct get.
const (
	headerStream   = "Nats-Stream"
	headerSubject  = "Nats-Subject"
	headerSequence = "Nats-Sequence"
	headerTime     = "Nats-Time-Stamp"
	headerPending  = "Nats-Num-Pending"
	headerLastSeq  = "Nats-Last-Sequence"
)

// getBatch reads the next messages of a filter with one direct get. more reports that
// the stream may hold others behind them.
func (q *queue) getBatch(ctx context.Context, filter string, from uint64, most int) (list []*item, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	body, err := json.Marshal(request{Seq: max(from, 1), Next: filter, Batch: most, MaxBytes: scanBytes})
	if err != nil {
		return nil, false, err
	}
	nc := q.js.Conn()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, false, fmt.Errorf("read stream %s: %w", q.name, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection may be gone
	if err := nc.PublishRequest(q.api+"DIRECT.GET."+q.name, inbox, body); err != nil {
		return nil, false, fmt.Errorf("read stream %s: %w", q.name, err)
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("read stream %s: %w", q.name, err)
		}
		m, err := q.parseDirect(msg)
		if err != nil {
			return nil, false, err
		}
		if m != nil {
			list = append(list, m)
			continue
		}
		switch status := msg.Header.Get("Status"); status {
		case "204": // the end of the batch
			return list, len(list) > 0 && msg.Header.Get(headerPending) != "0", nil
		case "404":
			return list, false, nil
		default:
			return nil, false, fmt.Errorf("read stream %s: status %s %s", q.name, status, msg.Header.Get("Description"))
		}
	}
}

// parseDirect parses one message of the answer to a direct get. It returns nil if the
// answer is only a status. Producers can set the headers that the server adds; the
// server's are the last.
func (q *queue) parseDirect(msg *nats.Msg) (*item, error) {
	if len(msg.Header[headerSequence]) == 0 {
		return nil, nil
	}
	take := func(name string) string {
		values := msg.Header[name]
		if len(values) == 0 {
			return ""
		}
		if len(values) == 1 {
			delete(msg.Header, name)
		} else {
			msg.Header[name] = values[:len(values)-1]
		}
		return values[len(values)-1]
	}
	if name := take(headerStream); name != q.name {
		return nil, fmt.Errorf("%w: %s answers for %s", errIndirect, name, q.name)
	}
	seq, err := strconv.ParseUint(take(headerSequence), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read sequence: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, take(headerTime))
	if err != nil {
		return nil, fmt.Errorf("read time of message %d: %w", seq, err)
	}
	subject := take(headerSubject)
	take(headerPending)
	take(headerLastSeq)
	return q.item(seq, at, subject, msg.Header, msg.Data), nil
}

func (q *queue) item(seq uint64, at time.Time, subject string, header map[string][]string, body []byte) *item {
	return &item{
		Message: message.Message{
			Seq: seq, At: at, Subject: subject, Address: message.AddressOf(q.subjects, subject), Header: header, Body: body,
		},
		connection: q.connection(),
	}
}

// connection numbers the connections to the server.
func (q *queue) connection() uint64 { return q.js.Conn().Stats().Reconnects }

// again returns [errAgain] with a reason, and notes that the stream is not the one that
// was read so far.
func (q *queue) again(reason string) error {
	q.changed.Store(true)
	return fmt.Errorf("%w: %s", errAgain, reason)
}

// certain reports whether the sequence of a message that was read on a connection cannot
// be another message's by now: the server may have lost the message, or the stream may
// have been deleted and created again.
func (q *queue) certain(connection uint64) bool {
	return !q.changed.Load() && connection == q.connection()
}

// getRange asks the leader for every sequence of a range at once.
func (q *queue) getRange(ctx context.Context, from, to uint64) (list []*item, err error) {
	msgs := make([]*nats.Msg, 0, to-from+1)
	for seq := from; seq <= to; seq++ {
		msgs = append(msgs, &nats.Msg{Subject: q.getSubject(), Data: fmt.Appendf(nil, `{"seq":%d}`, seq)})
	}
	x, err := newExchange(q.js.Conn(), len(msgs))
	if err != nil {
		return nil, err
	}
	defer x.close()
	answers, failed := x.ask(ctx, msgs, q.timeout)
	for i := range msgs {
		if failed[i] != nil {
			return nil, fmt.Errorf("read stream %s: %w", q.name, failed[i])
		}
		m, err := q.parseAnswer(answers[i].Data)
		if err != nil {
			return nil, err
		}
		if m != nil {
			list = append(list, m)
		}
	}
	return list, nil
}

func (q *queue) getSubject() string { return q.api + "STREAM.MSG.GET." + q.name }

// get asks the leader for one message. It returns nil if the message does not exist.
func (q *queue) get(ctx context.Context, r request) (*item, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	reply, err := q.js.Conn().RequestWithContext(ctx, q.getSubject(), body)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", q.name, err)
	}
	return q.parseAnswer(reply.Data)
}

// parseAnswer parses the leader's answer to a request for a message.
func (q *queue) parseAnswer(data []byte) (*item, error) {
	m, err := publisher.ParseGet(data)
	switch {
	case m != nil: // without headers if they are not NATS headers; the body is all there is
		return q.item(m.Sequence, m.Time, m.Subject, m.Header, m.Data), nil
	case err != nil:
		return nil, fmt.Errorf("read stream %s: %w", q.name, err)
	}
	return nil, nil
}

// removal asks the server to delete a message.
func (q *queue) removal(seq uint64) *nats.Msg {
	return &nats.Msg{Subject: q.api + "STREAM.MSG.DELETE." + q.name, Data: fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq)}
}

// removed reads the answer to a removal. If the server reports a failure, the
// leader is asked whether the message is still there.
func (q *queue) removed(ctx context.Context, m *recordJob, answer *nats.Msg, err error) error {
	var reply struct {
		Success bool                `json:"success"`
		Error   *jetstream.APIError `json:"error"`
	}
	if err == nil {
		if err = json.Unmarshal(answer.Data, &reply); err == nil && reply.Success {
			return nil
		}
		if reply.Error != nil {
			err = reply.Error
		}
	}
	if there, lookErr := q.holds(ctx, m.seq, m.at); lookErr == nil && !there {
		return nil
	}
	return fmt.Errorf("delete message %d: %w", m.seq, err)
}

// holds reports whether a message is still in the stream. A message with another time
// is a different one that got its sequence: the server lost data, or the stream was
// recreated.
func (q *queue) holds(ctx context.Context, seq uint64, at time.Time) (bool, error) {
	m, err := q.get(ctx, request{Seq: seq})
	return m != nil && m.At.Equal(at), err
}
