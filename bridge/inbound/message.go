package inbound

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// HeaderID carries, on a message that was put back from the dead letters, the
// id that it had the first time. It stays the id of its result and its
// Idempotency-Key.
const HeaderID = "Plaspy-Id"

// maxKey bounds what is sent as an HTTP header.
const maxKey = 256

// message is one inbound message in hand.
type message struct {
	seq     uint64
	at      time.Time // when the stream took it
	subject string
	address address // what the subject says
	header  nats.Header
	body    []byte
	// delivery acknowledges the message; nil where it was read from the stream
	// and has to be deleted instead.
	delivery jetstream.Msg
	// outcome is set once the message was posted or given up, and only has to
	// be recorded.
	outcome *outcome
	posted  bool // by this run, which has it among its open posts until it is recorded
}

// size is what the message takes in memory, roughly.
func (m *message) size() int { return len(m.body) + len(m.subject) + 64*len(m.header) + 512 }

// id is what names the message in its result and to the API.
func (m *message) id(streamName string) string {
	if id := m.header.Get(HeaderID); id != "" {
		return id
	}
	if id := m.header.Get(nats.MsgIdHdr); id != "" {
		return id
	}
	return streamName + ":" + strconv.FormatUint(m.seq, 10)
}

// own is an id that no other message has, also where two share an id of the
// producer's or the stream was made anew. It is the same at every try.
func (m *message) own(streamName string) string {
	return streamName + ":" + strconv.FormatUint(m.seq, 10) + ":" + strconv.FormatInt(m.at.UnixNano(), 36)
}

// idempotencyKey makes an id fit for an HTTP header.
func idempotencyKey(id string) string {
	for i := 0; i < len(id); i++ {
		if id[i] <= ' ' || id[i] > '~' {
			id = publisher.Encode(id)
			break
		}
	}
	return id[:min(len(id), maxKey)]
}

// address is what a subject says: which lane a message belongs to, and what is
// to be posted to whom.
type address struct {
	lane   string // key of the lane
	filter string // matches the subjects of the lane's messages, and no other's
	kind   Kind
	token  string // the device's, empty where kind is Unknown
	device string // its id
	reason string // where kind is Unknown: why
}

// addressOf reads a subject of the inbound stream. Every message has a lane,
// also one that can only be dead-lettered: prefix.in.x.y shares that of
// device y, because a filter by subject cannot tell them apart.
func addressOf(subjects publisher.Subjects, subject string) address {
	rest, ok := strings.CutPrefix(subject, string(subjects)+".in.")
	kind, token, nested := strings.Cut(rest, ".")
	if !ok || !nested || strings.Contains(token, ".") {
		return address{lane: subject, filter: subject, kind: Unknown, reason: "subject is none of " + wanted(subjects)}
	}
	a := address{lane: token, filter: string(subjects) + ".in.*." + token, kind: Unknown}
	if kind != string(Location) && kind != string(Alert) {
		a.reason = "subject is none of " + wanted(subjects)
		return a
	}
	id, err := publisher.Decode(token)
	if err == nil {
		_, err = publisher.Token(id)
	}
	if err != nil {
		a.reason = "subject does not name a device: " + err.Error()
		return a
	}
	a.kind, a.token, a.device = Kind(kind), token, id
	return a
}

func wanted(s publisher.Subjects) string {
	return s.InLocation("<device>") + " and " + s.InAlert("<device>")
}
