package message

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/publisher"
)

// Headers of a dead letter. The inbound message's own headers travel beside
// them; those that a NATS server would act on with HeaderOriginal in front.
const (
	HeaderReason   = "Plaspy-Reason"    // why it is not tried again
	HeaderError    = "Plaspy-Error"     // an excerpt of the API's answer, or another error
	HeaderAttempts = "Plaspy-Attempts"  // how often it was posted, by the process that gave up
	HeaderSubject  = "Plaspy-Subject"   // of the inbound message
	HeaderSequence = "Plaspy-Sequence"  // in the inbound stream
	HeaderStatus   = "Plaspy-Status"    // of the API's last answer
	HeaderFirstTry = "Plaspy-First-Try" // as TimeFormat of package publisher
	HeaderLastTry  = "Plaspy-Last-Try"
	// HeaderTruncated is on a letter that its stream accepted only without a part
	// of its body. Its value is the size of the whole body in bytes.
	HeaderTruncated = "Plaspy-Truncated"
	// HeaderDropped is on a letter that its stream accepted only without some of
	// the message's headers. Its value is their number and names.
	HeaderDropped = "Plaspy-Truncated-Headers"
	// HeaderHistory has, on a message that was put back, one value for each time
	// that it was given up before.
	HeaderHistory = "Plaspy-History"
	// HeaderOriginal precedes the name of a header that had a meaning to the
	// NATS server.
	HeaderOriginal = "Plaspy-Original-"
)

// made are the headers that the bridge sets on a letter. A producer's headers of
// these names, in any case, do not travel.
var made = [...]string{
	HeaderReason, HeaderError, HeaderAttempts, HeaderSubject, HeaderSequence,
	HeaderStatus, HeaderFirstTry, HeaderLastTry, HeaderTruncated, HeaderDropped,
}

// ReplayPrefix begins the Nats-Msg-Id of a message that was put back from the
// dead-letter stream of that name.
func ReplayPrefix(deadLetters string) string { return "replay:" + deadLetters + ":" }

// Replayed reports whether the message was put back from the dead letters. Only
// then are HeaderID and HeaderHistory the bridge's own words.
func (m *Message) Replayed(subjects publisher.Subjects) bool {
	return strings.HasPrefix(first(m.Header, headerMsgID), ReplayPrefix(subjects.DeadLetters()))
}

// Letter makes the dead letter of m.
func (w *Writer) Letter(m *Message, d *Decision) *Publication {
	h := w.travelling(m)
	if d.Attempts > 0 {
		h[HeaderFirstTry] = []string{d.First.UTC().Format(publisher.TimeFormat)}
		h[HeaderLastTry] = []string{d.Last.UTC().Format(publisher.TimeFormat)}
		if d.Status != 0 {
			h[HeaderStatus] = []string{strconv.Itoa(d.Status)}
		}
	}
	h[HeaderReason] = []string{Text(d.Reason)}
	if d.Detail != "" {
		h[HeaderError] = []string{Text(d.Detail)}
	}
	h[HeaderAttempts] = []string{strconv.Itoa(d.Attempts)}
	h[HeaderSubject] = []string{m.Subject}
	h[HeaderSequence] = []string{strconv.FormatUint(m.Seq, 10)}
	if d.Trace != nil {
		d.Trace(h)
	}
	h[headerMsgID] = []string{"dead:" + m.UniqueID(w.Subjects)}
	subject := w.Subjects.DeadLetterUnknown()
	if a := m.Address; a.Kind != Unknown {
		subject = w.Subjects.DeadLetter(string(a.Kind), a.Token)
	}
	p := &Publication{Subject: subject, Header: h, Body: m.Body}
	if countRefused(d.Items) < len(d.Items) {
		keepRefused(p, d)
	}
	return p
}

// keepRefused leaves in a letter the elements of a batch that were not posted: a
// replay must not post the others again.
func keepRefused(p *Publication, d *Decision) {
	p.Body = d.Posts.rest(d.Items)
	if contentTypeOf(p.Header) != typeStructured {
		return
	}
	for name := range p.Header {
		if strings.EqualFold(name, headerContentType) {
			delete(p.Header, name)
		}
	}
	contentType := "application/json"
	if d.Posts.lines {
		contentType = typeNDJSON
	}
	p.Header[headerContentType] = []string{contentType}
}

// travelling are the headers of a message that its letter keeps.
func (w *Writer) travelling(m *Message) map[string][]string {
	h := make(map[string][]string, len(m.Header)+10)
	replayed := m.Replayed(w.Subjects)
	for name, values := range m.Header {
		lower := strings.ToLower(name)
		switch {
		case strings.HasPrefix(lower, "nmqtt-"):
			// A server that finds one believes that its MQTT side delivers the
			// message, and does not.
			continue
		case slices.ContainsFunc(made[:], func(own string) bool { return strings.EqualFold(own, name) }):
			continue
		case !replayed && (lower == strings.ToLower(HeaderID) || lower == strings.ToLower(HeaderHistory) || strings.HasPrefix(lower, strings.ToLower(HeaderOriginal))):
			continue
		case strings.HasPrefix(lower, "nats-"):
			name = HeaderOriginal + name
		}
		h[name] = values
	}
	return h
}

// cutLetter makes a letter smaller after its stream refused it for its size: of
// the message's own headers the largest go first, half of them in bytes at each
// call, and then half of the body at each call. If only the headers are too
// large, the body stays. It reports false if there is nothing left to cut.
func cutLetter(p *Publication, headersOnly bool) bool {
	if dropHeaders(p) {
		return true
	}
	if headersOnly || len(p.Body) == 0 {
		return dropDetail(p)
	}
	if first(p.Header, HeaderTruncated) == "" {
		p.Header[HeaderTruncated] = []string{strconv.Itoa(len(p.Body))}
	}
	p.Body = p.Body[:len(p.Body)/2]
	return true
}

// dropHeaders removes the largest of the message's own headers, until half of
// their bytes are gone. The ids of the message go last.
func dropHeaders(p *Publication) bool {
	type entry struct {
		name string
		size int
		id   bool
	}
	var foreign []entry
	total := 0
	for name, values := range p.Header {
		if slices.Contains(made[:], name) || name == headerMsgID {
			continue
		}
		e := entry{name, headerSize(name, values), name == HeaderID || name == HeaderOriginal+headerMsgID}
		foreign = append(foreign, e)
		total += e.size
	}
	if len(foreign) == 0 {
		return false
	}
	slices.SortFunc(foreign, func(a, b entry) int {
		if a.id != b.id {
			if a.id {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name))
	})
	var names []string
	for left := total; len(names) < len(foreign) && left > total/2; {
		e := foreign[len(names)]
		names, left = append(names, e.name), left-e.size
		delete(p.Header, e.name)
	}
	count, before, _ := strings.Cut(first(p.Header, HeaderDropped), ": ")
	n, _ := strconv.Atoi(count)
	if before != "" {
		names = append([]string{before}, names...)
		n--
	}
	p.Header[HeaderDropped] = []string{Text(strconv.Itoa(n+len(names)) + ": " + strings.Join(names, ", "))}
	return true
}

// dropDetail shortens the bridge's own texts in a letter; the reason, the
// subject and the sequence stay.
func dropDetail(p *Publication) bool {
	for _, name := range [...]string{HeaderDropped, HeaderError, HeaderFirstTry, HeaderLastTry} {
		if _, there := p.Header[name]; there {
			delete(p.Header, name)
			return true
		}
	}
	reason := first(p.Header, HeaderReason)
	p.Header[HeaderReason] = []string{redact.Cut(reason, brief)}
	return redact.Cut(reason, brief) != reason
}

// headerSize is the length of a header as it travels.
func headerSize(name string, values []string) int {
	n := 0
	for _, value := range values {
		n += len(name) + len(value) + len(": \r\n")
	}
	return n
}

// Tries describes the tries to post a message.
type Tries struct {
	Attempts    int // by this process
	First, Last time.Time
	Status      int // of the last answer, 0 if none came
}

// maxText bounds the length of a text that the bridge makes, in bytes.
const maxText = 1 << 10

// brief bounds a text of which only the beginning is of use, in bytes.
const brief = 40

// Text makes any text the value of a header: one line of printable characters,
// at most 1 KiB.
func Text(s string) string { return redact.Line(s, maxText) }
