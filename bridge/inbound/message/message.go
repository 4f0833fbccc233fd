package message

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"plaspy-bridge/publisher"
)

// HeaderID carries, on a message that was put back from the dead letters, the
// id that it had the first time. It stays the id of its result and its
// Idempotency-Key.
const HeaderID = "Plaspy-Id"

// HeaderReplyTo is set by producers that want the result on a subject of their
// own, too.
const HeaderReplyTo = "Reply-To"

// headerMsgID is the server's header for the id of a message.
const headerMsgID = "Nats-Msg-Id"

// maxKey bounds the length of an Idempotency-Key in bytes, and hashedKey begins
// one that is a hash.
const (
	maxKey    = 256
	hashedKey = "sha256:"
)

// Message is one inbound message as the stream holds it.
type Message struct {
	Seq     uint64
	At      time.Time // when the stream took it
	Subject string
	Address Address // read from Subject
	Header  map[string][]string
	Body    []byte
}

// Size is the memory that the message takes in bytes, roughly.
func (m *Message) Size() int {
	n := len(m.Body) + len(m.Subject) + 512
	for name, values := range m.Header {
		n += len(name) + 64
		for _, value := range values {
			n += len(value) + 16
		}
	}
	return n
}

// ID returns the id that names the message in its result and to the API. Two messages
// have the same one if their producer gave it to both.
func (m *Message) ID(subjects publisher.Subjects) string {
	if id := first(m.Header, HeaderID); id != "" && m.Replayed(subjects) {
		return id
	}
	if id := first(m.Header, headerMsgID); id != "" {
		return id
	}
	return subjects.Inbound() + ":" + strconv.FormatUint(m.Seq, 10)
}

// UniqueID returns an id that no other message has, even if producers used one id twice
// or the stream was created again. It is the same at every try.
func (m *Message) UniqueID(subjects publisher.Subjects) string {
	return subjects.Inbound() + ":" + strconv.FormatUint(m.Seq, 10) + ":" + strconv.FormatInt(m.At.UnixNano(), 36)
}

// IdempotencyKey makes an id fit for an HTTP header. An id that is too long, or
// that has other bytes than printable ASCII, is replaced by its hash: no two ids
// have the same key.
func IdempotencyKey(id string) string {
	plain := len(id) <= maxKey && !strings.HasPrefix(id, hashedKey)
	for i := 0; i < len(id) && plain; i++ {
		plain = id[i] > ' ' && id[i] <= '~'
	}
	if plain {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hashedKey + hex.EncodeToString(sum[:])
}

// ElementKey is the Idempotency-Key of an element of the batch with an id.
func ElementKey(id string, element int) string {
	sum := sha256.Sum256([]byte(id))
	return hashedKey + hex.EncodeToString(sum[:]) + "#" + strconv.Itoa(element)
}

// ReplyTo returns the subject in the message's Reply-To, or the reason why the bridge
// does not use it. A producer must not make the bridge publish to subjects that the
// producer itself may not use, so those of the server and of the bridge are refused.
func (m *Message) ReplyTo(subjects publisher.Subjects) (subject, refused string) {
	subject = first(m.Header, HeaderReplyTo)
	switch {
	case subject == "":
		return "", ""
	case len(subject) > publisher.MaxToken:
		return "", "it is too long"
	case subject[0] == '$' || subject[0] == '_' && !strings.HasPrefix(subject, "_INBOX"):
		return "", "it is the server's"
	case subject == string(subjects) || strings.HasPrefix(subject, string(subjects)+"."):
		return "", "it is the bridge's own"
	case !publisher.Literal(subject):
		return "", "it is not a subject to publish to"
	}
	return subject, ""
}

// first returns the first value of a header, whose name is matched to the
// letter.
func first(header map[string][]string, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}
