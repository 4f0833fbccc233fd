package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Stored is a message as the events stream holds it.
type Stored struct {
	Kind   string // "location", "alert" or "device"
	Device string // the device's token
	Alert  string // the alert's token, if Kind is "alert"
	ID     string // its Nats-Msg-Id
	// Seq is its sequence in the events stream. It is 0 if the message aged out and was
	// read from a bucket instead.
	Seq    uint64
	At     time.Time // when the stream stored it
	Header nats.Header
	Body   []byte
}

// AlertBody is the part of a stored alert event that the bridge reads back.
type AlertBody struct {
	Alert  string `json:"alert"`
	State  string `json:"state"`
	Source string `json:"source"`
}

// DeviceBody is the part of a stored device event that the bridge reads back.
type DeviceBody struct {
	Change string          `json:"change"`
	Device json.RawMessage `json:"device"`
}

// gone reports whether a message with this sequence, stored at this time, was in this
// stream and has aged out of it.
func (m Mark) gone(seq uint64, at time.Time) bool {
	return seq < m.FirstSeq && !at.Before(m.Created) && (m.Limited || m.old(at))
}

// readIdle is how long a read of the stream waits for the next message before it fails.
const readIdle = 5 * time.Second

// Reader reads the events stream, and the buckets that the server fills from it. It is
// safe for concurrent use.
type Reader struct {
	js       jetstream.JetStream
	subjects Subjects
	leader   *leader       // of the events stream
	idle     time.Duration // how long a read waits for the next message
	history  history
	silent   atomic.Bool // the bucket of the alert silent exists
}

// Mark reads the events stream's mark.
func (r *Reader) Mark(ctx context.Context) (Mark, error) {
	info, err := lookUp(ctx, r.js, r.subjects.Events())
	if err != nil {
		return Mark{}, fmt.Errorf("read stream state: %w", explain(err))
	}
	return r.history.origin(markOf(info)), nil
}

func markOf(info *jetstream.StreamInfo) Mark {
	origin, err := strconv.ParseUint(info.Config.Metadata[originKey], 10, 64)
	if err != nil {
		origin = 1
	}
	return Mark{
		Origin: origin, Created: info.Created, FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq,
		FirstTime: info.State.FirstTime, LastTime: info.State.LastTime, Deleted: info.State.NumDeleted, Now: info.TimeStamp, MaxAge: info.Config.MaxAge,
		Limited: info.Config.MaxMsgs > 0 || info.Config.MaxBytes > 0 || info.Config.MaxMsgsPerSubject > 0,
	}
}

// Observe reads the events stream's mark and compares it with that of the last call.
// If the verdict is not Intact, the stream's content has to be read again. The first
// call returns Intact.
func (r *Reader) Observe(ctx context.Context) (Mark, Verdict, error) {
	acked := r.history.ackedSeq() // before the request: the mark may not include later events
	info, err := lookUp(ctx, r.js, r.subjects.Events())
	if err != nil {
		return Mark{}, Intact, fmt.Errorf("read stream state: %w", explain(err))
	}
	mark := markOf(info)
	verdict := r.history.observe(mark, acked)
	return r.history.origin(mark), verdict, nil
}

// State calls f with the last messages of every device: its last
// location, its last device event and the last message of each of its alerts
// (every alert in the stream if allAlerts is set). Locations that aged out
// of the stream come from the last-location bucket, with Seq 0. f must not keep
// the message. The mark is of the moment before the read.
func (r *Reader) State(ctx context.Context, allAlerts bool, f func(Stored)) (Mark, error) {
	mark, err := r.Mark(ctx)
	if err != nil {
		return mark, err
	}
	complete, seen := mark.Complete(), make(map[string]struct{})
	if err := r.readEvents(ctx, "*", allAlerts, func(s Stored) {
		if s.Kind == "location" && !complete {
			seen[s.Device] = struct{}{}
		}
		f(s)
	}); err != nil {
		return mark, err
	}
	if complete {
		return mark, nil
	}
	if err := r.agedOut(ctx, mark, seen, f); err != nil || !r.silent.Load() {
		return mark, err
	}
	return mark, r.silentAgedOut(ctx, mark, f)
}

// StateOf calls f with the last messages of one device, by its
// token, as [Reader.State] does for all. It does not read the last-location
// bucket.
func (r *Reader) StateOf(ctx context.Context, device string, allAlerts bool, f func(Stored)) error {
	return r.readEvents(ctx, device, allAlerts, f)
}

func (r *Reader) readEvents(ctx context.Context, device string, allAlerts bool, f func(Stored)) error {
	visit := func(m jetstream.Msg, seq uint64, at time.Time) {
		kind, device, alert, ok := r.subjects.Kind(m.Subject())
		if !ok {
			return // another subject that the operator added to the stream
		}
		f(Stored{Kind: kind, Device: device, Alert: alert, ID: m.Headers().Get(nats.MsgIdHdr), Seq: seq, At: at, Header: m.Headers(), Body: m.Data()})
	}
	last := []string{r.subjects.Location(device), r.subjects.Device(device)}
	alerts := r.subjects.Alert(device, "*")
	if !allAlerts {
		last = append(last, alerts)
	} else if err := r.read(ctx, r.subjects.Events(), jetstream.DeliverAllPolicy, []string{alerts}, visit); err != nil {
		return err
	}
	return r.read(ctx, r.subjects.Events(), jetstream.DeliverLastPerSubjectPolicy, last, visit)
}

// agedOut reads the last-location bucket for devices without a location in the
// events stream.
func (r *Reader) agedOut(ctx context.Context, mark Mark, seen map[string]struct{}, f func(Stored)) error {
	return r.gone(ctx, r.subjects.LastBucket(), mark, func(device string, m jetstream.Msg, at time.Time) {
		if _, known := seen[device]; !known {
			f(Stored{Kind: "location", Device: device, ID: m.Headers().Get(nats.MsgIdHdr), At: at, Header: m.Headers(), Body: m.Data()})
		}
	})
}

// gone calls f with the entries of a bucket that came from this events stream, from
// before its first message, and that are old enough to have aged out. The broker lost
// the events of other entries, and they have to be published again.
func (r *Reader) gone(ctx context.Context, bucket string, mark Mark, f func(key string, m jetstream.Msg, at time.Time)) error {
	prefix := BucketKey(bucket, "")
	err := r.read(ctx, BucketStream(bucket), jetstream.DeliverLastPerSubjectPolicy, nil, func(m jetstream.Msg, _ uint64, at time.Time) {
		key, ok := strings.CutPrefix(m.Subject(), prefix)
		if !ok {
			return
		}
		if seq, ok := sourceSeq(m.Headers()); ok && mark.gone(seq, at) {
			f(key, m, at)
		}
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // an operator deleted the bucket
	}
	return err
}

// sourceSeq reads the sequence that a sourced message had in its origin:
// "STREAM SEQ ..." in the header that the server adds.
func sourceSeq(h nats.Header) (uint64, bool) {
	text := h.Get(headerOrigin) // of an entry that FillLast put
	if parts := strings.Fields(h.Get("Nats-Stream-Source")); len(parts) >= 2 {
		text = parts[1]
	}
	seq, err := strconv.ParseUint(text, 10, 64)
	return seq, err == nil
}

// read calls f with each message of an ordered consumer, up to the last message at
// its start.
func (r *Reader) read(ctx context.Context, stream string, policy jetstream.DeliverPolicy, filters []string, f func(m jetstream.Msg, seq uint64, at time.Time)) error {
	c, err := r.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: policy, FilterSubjects: filters, InactiveThreshold: 2 * r.idle,
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, explain(err))
	}
	// Delete the consumer now, because a stream's consumers are limited. If this fails,
	// it expires soon.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = r.js.DeleteConsumer(ctx, stream, c.CachedInfo().Name)
	}()
	info := c.CachedInfo()
	if info.NumPending == 0 {
		return nil
	}
	it, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, explain(err))
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	// One timer serves all messages, because a large fleet has hundreds of thousands.
	var quiet atomic.Bool
	timer := time.AfterFunc(r.idle, func() { quiet.Store(true); it.Stop() })
	defer timer.Stop()
	for {
		m, err := it.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && quiet.Load() {
			err = nats.ErrTimeout
		}
		if err != nil {
			return fmt.Errorf("read stream %s: %w", stream, explain(err))
		}
		timer.Reset(r.idle)
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read stream %s: %w", stream, err)
		}
		f(m, meta.Sequence.Stream, meta.Timestamp)
		if meta.NumPending == 0 {
			return nil
		}
	}
}

// Last reads the last message of a subject of the events stream from the
// stream's leader. It is nil if there is none.
func (r *Reader) Last(ctx context.Context, subject string) (*Stored, error) {
	m, err := r.leader.last(ctx, subject)
	if m == nil || err != nil {
		return nil, err
	}
	kind, device, alert, _ := r.subjects.Kind(m.Subject)
	return &Stored{Kind: kind, Device: device, Alert: alert, ID: m.Header.Get(nats.MsgIdHdr), Seq: m.Sequence, At: m.Time, Header: m.Header, Body: m.Data}, nil
}

// leader reads single messages from the leader of one stream. A follower that lags
// may answer the direct gets of the client library, so decisions cannot rely on
// them. It is safe for concurrent use.
type leader struct {
	js     jetstream.JetStream
	stream string
}

// leaderTimeout limits the time of one read.
const leaderTimeout = 5 * time.Second

// last returns the last message of a subject, or nil if there is none.
func (l *leader) last(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	m, err := l.ask(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", l.stream, explain(err))
	}
	return m, nil
}

// APIPrefix returns the prefix of requests to JetStream, with a dot at its end.
func APIPrefix(js jetstream.JetStream) string {
	switch o := js.Options(); {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

func (l *leader) ask(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	reply, err := l.js.Conn().RequestWithContext(ctx, APIPrefix(l.js)+"STREAM.MSG.GET."+l.stream, body)
	if err != nil {
		return nil, err
	}
	return ParseGet(reply.Data)
}

// ParseGet parses the answer to a STREAM.MSG.GET request. It returns nil if there is
// no such message. If only the headers are malformed, it returns the message without
// them, and an error.
func ParseGet(reply []byte) (*jetstream.RawStreamMsg, error) {
	var answer struct {
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
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
	if len(m.Header) == 0 {
		return raw, nil
	}
	header, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil {
		return raw, fmt.Errorf("headers of message %d: %w", m.Seq, err)
	}
	raw.Header = header
	return raw, nil
}
