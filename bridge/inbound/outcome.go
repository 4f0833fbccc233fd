package inbound

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/publisher"
)

// Headers of a dead letter. The inbound message's own headers travel beside
// them; those that a NATS server would act on with HeaderOriginal in front.
const (
	HeaderReason   = "Plaspy-Reason"    // why it is not tried again
	HeaderError    = "Plaspy-Error"     // an excerpt of the API's answer, or of what else went wrong
	HeaderAttempts = "Plaspy-Attempts"  // how often it was posted, by the process that gave up
	HeaderSubject  = "Plaspy-Subject"   // where it came from
	HeaderSequence = "Plaspy-Sequence"  // in the inbound stream
	HeaderStatus   = "Plaspy-Status"    // of the API's last answer
	HeaderFirstTry = "Plaspy-First-Try" // as TimeFormat of package publisher
	HeaderLastTry  = "Plaspy-Last-Try"
	// HeaderTruncated stands where the server took the letter only with a part
	// of its body, and tells how many bytes it had.
	HeaderTruncated = "Plaspy-Truncated"
	HeaderOriginal  = "Plaspy-Original-"
	// HeaderPosted stands on the result of a location: the fix that was posted,
	// as dateTime, latitude and longitude. [Origins] reads it.
	HeaderPosted = "plaspy-posted"
	// HeaderReplyTo is set by producers that want the result on a subject of
	// their own, too.
	HeaderReplyTo = "Reply-To"
)

// maxHeader bounds the value of a header that the bridge makes.
const maxHeader = 1 << 10

// outcome is what became of a message, not yet recorded.
type outcome struct {
	result string    // "posted" or "dead"
	main   *nats.Msg // to the results or to the dead letters
	reply  *nats.Msg // to Reply-To; nil for none
	stored bool      // main is in its stream

	counted bool // the metrics have it
}

// Results as the metrics name them.
const (
	resultPosted  = "posted"
	resultDead    = "dead"
	resultRetried = "retried"
)

// result describes a message that the API took.
type result struct {
	deviceID string
	token    string
	kind     Kind
	id       string // the message's
	own      string // the result's own
	status   int
	attempts int
	at       time.Time
	source   string
	response []byte // the API's body
	fix      *fix   // of a location
	limit    int    // the largest message that the server takes
}

// posted makes the result message.
func (r *result) posted(subjects publisher.Subjects) *nats.Msg {
	b := make([]byte, 0, 256+len(r.response))
	b = appendJSON(append(b, `{"deviceId":`...), r.deviceID)
	b = appendJSON(append(b, `,"kind":`...), string(r.kind))
	b = appendJSON(append(b, `,"id":`...), r.id)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.status), 10)
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(r.attempts), 10)
	b = append(b, `,"postedAt":"`...)
	b = r.at.UTC().AppendFormat(b, publisher.TimeFormat)
	b = append(b, `","response":`...)
	// A message that the server refuses for its size would never be recorded.
	if len(b)+len(r.response)+4<<10 > r.limit && r.limit > 0 {
		b = append(b, `null,"responseBytes":`...)
		b = strconv.AppendInt(b, int64(len(r.response)), 10)
	} else {
		b = appendResponse(b, r.response)
	}
	m := &nats.Msg{
		Subject: subjects.Result(string(r.kind), r.token),
		Header:  publisher.CloudEvent(publisher.TypeResult, r.own, r.source, r.token, r.at),
		Data:    append(b, '}'),
	}
	if r.fix != nil {
		m.Header[HeaderPosted] = []string{r.fix.String()}
	}
	return m
}

// appendResponse keeps the result valid JSON whatever the API answered: JSON as
// it came, nothing as null, all else as a string.
func appendResponse(b, response []byte) []byte {
	response = bytes.TrimSpace(response)
	switch {
	case len(response) == 0:
		return append(b, "null"...)
	case utf8.Valid(response) && json.Valid(response):
		return append(b, response...)
	}
	return appendJSON(b, strings.ToValidUTF8(string(response), "�"))
}

func appendJSON(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // cannot happen: any string marshals
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// deadLetter makes the message that keeps m from being lost. t may be nil.
func deadLetter(subjects publisher.Subjects, streamName string, a address, m *message, reason, detail string, t *trial) *nats.Msg {
	h := make(nats.Header, len(m.header)+10)
	for name, values := range m.header {
		if strings.HasPrefix(strings.ToLower(name), "nats-") {
			name = HeaderOriginal + name
		}
		h[name] = values
	}
	for _, name := range []string{HeaderError, HeaderStatus, HeaderFirstTry, HeaderLastTry, HeaderTruncated} {
		delete(h, name)
	}
	attempts := 0
	if t != nil && t.attempts > 0 {
		attempts = t.attempts
		h[HeaderFirstTry] = []string{t.first.UTC().Format(publisher.TimeFormat)}
		h[HeaderLastTry] = []string{t.last.UTC().Format(publisher.TimeFormat)}
		if t.status != 0 {
			h[HeaderStatus] = []string{strconv.Itoa(t.status)}
		}
	}
	h[HeaderReason] = []string{headerText(reason)}
	if detail != "" {
		h[HeaderError] = []string{headerText(detail)}
	}
	h[HeaderAttempts] = []string{strconv.Itoa(attempts)}
	h[HeaderSubject] = []string{m.subject}
	h[HeaderSequence] = []string{strconv.FormatUint(m.seq, 10)}
	h[nats.MsgIdHdr] = []string{"dead:" + m.own(streamName)}
	subject := subjects.DeadLetterUnknown()
	if a.kind != Unknown {
		subject = subjects.DeadLetter(string(a.kind), a.token)
	}
	return &nats.Msg{Subject: subject, Header: h, Data: m.body}
}

// headerText makes any text the value of a header: one line, bounded.
func headerText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > maxHeader {
		s = strings.ToValidUTF8(s[:maxHeader-3], "") + "..."
	}
	return s
}

// shorten cuts the body of a dead letter that the server does not take for its
// size. The inbound stream that the bridge makes refuses such a message at the
// door; this is for one that somebody else made.
func shorten(m *nats.Msg, limit int64) {
	room := max(limit/2, 0)
	if int64(len(m.Data)) <= room {
		return
	}
	m.Header[HeaderTruncated] = []string{strconv.Itoa(len(m.Data))}
	m.Data = m.Data[:room]
}

// replySubject returns where else the result goes, or why nowhere. The bridge
// must not become a way round its producers' permissions: the subjects of the
// server and the bridge's own are not for results.
func replySubject(subjects publisher.Subjects, h nats.Header) (subject, refused string) {
	subject = h.Get(HeaderReplyTo)
	switch {
	case subject == "":
		return "", ""
	case len(subject) > publisher.MaxToken:
		return "", "it is too long"
	case subject[0] == '$' || subject[0] == '_' && !strings.HasPrefix(subject, "_INBOX."):
		return "", "it is the server's"
	case subject == string(subjects) || strings.HasPrefix(subject, string(subjects)+"."):
		return "", "it is the bridge's own"
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n\x00") {
			return "", "it is not a subject to publish to"
		}
	}
	return subject, ""
}
