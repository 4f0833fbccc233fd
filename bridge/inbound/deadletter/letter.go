package deadletter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// maxHistory bounds how many times are remembered, the last ones.
const maxHistory = 10

// Unknown is the kind of a letter whose message's subject is none of the bridge's.
const Unknown = message.Unknown

// Letter is one dead letter.
type Letter struct {
	Seq     uint64    // in the dead-letter stream
	At      time.Time // when it became one
	Subject string    // in that stream
	Kind    message.Kind
	// Device is the device's id; empty if Kind is Unknown.
	Device string

	Reason    string
	Error     string // an excerpt of the answer, or of another failure
	Status    string // of the last answer; empty if none came
	Attempts  int
	FirstTry  string // as the header has it; empty if it was never tried
	LastTry   string
	Original  string // the subject that it came from
	Sequence  uint64 // that it had in the inbound stream
	History   []string
	Header    nats.Header // all headers, as stored
	Body      []byte
	Truncated bool // the server did not take the whole body; such a letter cannot go back
}

// read makes a letter of a stored message. A header that is missing or spoilt
// leaves its field empty: an edited letter is shown nevertheless.
func read(subjects publisher.Subjects, seq uint64, at time.Time, subject string, h nats.Header, body []byte) Letter {
	l := Letter{
		Seq: seq, At: at, Subject: subject, Kind: message.Unknown, Header: h, Body: body,
		Reason: h.Get(message.HeaderReason), Error: h.Get(message.HeaderError), Status: h.Get(message.HeaderStatus),
		FirstTry: h.Get(message.HeaderFirstTry), LastTry: h.Get(message.HeaderLastTry),
		Original: h.Get(message.HeaderSubject), History: h.Values(message.HeaderHistory), Truncated: h.Get(message.HeaderTruncated) != "",
	}
	l.Attempts, _ = strconv.Atoi(h.Get(message.HeaderAttempts))
	l.Sequence, _ = strconv.ParseUint(h.Get(message.HeaderSequence), 10, 64)
	for _, kind := range []message.Kind{message.Location, message.Alert} {
		token, ok := strings.CutPrefix(subject, subjects.DeadLetter(string(kind), ""))
		if !ok {
			continue
		}
		if id, err := publisher.Decode(token); err == nil {
			l.Kind, l.Device = kind, id
		}
	}
	return l
}

// Filter chooses letters. The zero value chooses all.
type Filter struct {
	Device    string        // its id; empty means any
	Kind      message.Kind  // empty means any
	Reason    string        // a substring, in any case; empty means any
	OlderThan time.Duration // stored at least this long ago
}

// match reports whether a letter is chosen at a time.
func (f Filter) match(l *Letter, now time.Time) bool {
	return (f.Device == "" || l.Device == f.Device) &&
		(f.Kind == "" || l.Kind == f.Kind) &&
		(f.Reason == "" || strings.Contains(strings.ToLower(l.Reason), strings.ToLower(f.Reason))) &&
		(f.OlderThan <= 0 || now.Sub(l.At) >= f.OlderThan)
}

// Check reports a filter that can choose nothing.
func (f Filter) Check() error {
	switch f.Kind {
	case "", message.Location, message.Alert, message.Unknown:
	default:
		return fmt.Errorf("kind %q is none of %s, %s and %s", f.Kind, message.Location, message.Alert, message.Unknown)
	}
	if f.OlderThan < 0 {
		return fmt.Errorf("age %v is negative", f.OlderThan)
	}
	return nil
}

// failure are the headers that describe the failure; they stay behind when the
// message goes back.
var failure = [...]string{
	message.HeaderReason, message.HeaderError, message.HeaderAttempts, message.HeaderSubject, message.HeaderSequence,
	message.HeaderStatus, message.HeaderFirstTry, message.HeaderLastTry,
}

// Described reports whether a header of a letter is in one of its other fields.
func Described(name string) bool {
	return slices.Contains(failure[:], name) || name == message.HeaderHistory || name == nats.MsgIdHdr
}

// acting are the beginnings of headers that would make the server do something
// with the message that is not to be done twice: check a sequence that has
// moved on, remove other messages, let it expire or schedule it.
var acting = [...]string{
	"nats-msg-id", "nats-expected-", "nats-rollup", "nats-ttl", "nats-schedule", "nats-incr", "nats-batch",
	"nats-stream-source", "nats-marker-reason", "nats-trace-", "nats-sequence", "nats-time-stamp", "nats-subject", "nats-stream",
	"nats-last-sequence", "nats-num-pending", "nats-pin-id",
}

// replay returns the message that goes back: it has the subject, body and headers of the
// inbound message, and a new id. The result has the id that the message had at first.
func (l *Letter) replay(dead jetstream.StreamInfo, inboundStream string) *nats.Msg {
	h := make(nats.Header, len(l.Header)+3)
	first := ""
	for name, values := range l.Header {
		original, wasNATS := strings.CutPrefix(name, message.HeaderOriginal)
		switch {
		case strings.HasPrefix(strings.ToLower(name), "nmqtt-"):
			// The server would take the message for one of its MQTT side's.
		case wasNATS && strings.EqualFold(original, nats.MsgIdHdr):
			first = values[0]
		case wasNATS && acts(original):
			h[name] = values // it keeps its prefix
		case wasNATS:
			h[original] = values
		case strings.HasPrefix(strings.ToLower(name), "nats-"):
			// The letter's own.
		default:
			h[name] = values
		}
	}
	for _, name := range failure {
		delete(h, name)
	}
	if h.Get(message.HeaderID) == "" {
		if first == "" {
			first = inboundStream + ":" + strconv.FormatUint(l.Sequence, 10)
		}
		h[message.HeaderID] = []string{first}
	}
	history := append(append([]string(nil), l.History...), l.line())
	h[message.HeaderHistory] = history[max(0, len(history)-maxHistory):]
	// The stream's creation distinguishes it from an older stream, in which the same
	// sequence is another letter.
	h[nats.MsgIdHdr] = []string{fmt.Sprintf("%s%d:%d", message.ReplayPrefix(dead.Config.Name), dead.Created.UnixNano(), l.Seq)}
	return &nats.Msg{Subject: l.Original, Header: h, Data: l.Body}
}

// lighter are the steps in which a message that goes back becomes smaller: whole,
// without its history, with no more than its ids, and without any header.
var lighter = [...]func(*nats.Msg){
	func(*nats.Msg) {},
	func(m *nats.Msg) { delete(m.Header, message.HeaderHistory) },
	func(m *nats.Msg) {
		for name := range m.Header {
			if name != nats.MsgIdHdr && name != message.HeaderID {
				delete(m.Header, name)
			}
		}
	},
	func(m *nats.Msg) { m.Header = nats.Header{} },
}

func acts(header string) bool {
	header = strings.ToLower(header)
	for _, beginning := range acting {
		if strings.HasPrefix(header, beginning) {
			return true
		}
	}
	return false
}

// line is the letter in its message's history.
func (l *Letter) line() string {
	s := fmt.Sprintf("%s letter=%d sequence=%d attempts=%d", l.At.UTC().Format(publisher.TimeFormat), l.Seq, l.Sequence, l.Attempts)
	if l.Status != "" {
		s += " status=" + l.Status
	}
	return s + " reason=" + strconv.Quote(redact.Cut(l.Reason, 200))
}
