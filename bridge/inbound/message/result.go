package message

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/publisher"
)

// HeaderPosted is on the result of a location: the fix that was posted, as
// dateTime, latitude and longitude.
const HeaderPosted = "plaspy-posted"

// maxResultID bounds the id in a result that its stream refused for its size.
const maxResultID = 200

// Publication is a message to be published.
type Publication struct {
	Subject string
	Header  map[string][]string
	Body    []byte
}

// Writer makes the results and dead letters of one bridge.
type Writer struct {
	Subjects publisher.Subjects
	Source   func(deviceID string) string // the device's URL at the API, for ce-source; nil means none
	// MaxPayload is the size of the largest message that the server accepts; 0
	// means that it is not known.
	MaxPayload int
}

// Decision is the final result of the tries to post a message.
type Decision struct {
	Tries
	At time.Time // when it was decided
	// Reason is why the message will not be tried again. It is empty if the
	// API took the message.
	Reason   string
	Detail   string // of the last failure
	Response []byte // the API's body, if it took the message
	Fix      *Fix   // the location that was posted
	// Items are the results of the elements of a batch, and Posts those elements.
	Items  []ElementResult
	Posts  *Posts
	reader Reader
	// Trace sets the headers that carry the trace on. Optional.
	Trace func(header map[string][]string)
}

// brevity is how much a result leaves out because its stream refused it for
// its size.
type brevity int

const (
	whole       brevity = iota
	noResponse          // only the size of the response
	noDetail            // and no errors, and the beginning of the reason
	noItems             // and only the number of items
	shortID             // and the beginning of the id
	briefLevels         // their number
)

// result makes the result of a message; letter is the sequence of its dead
// letter, and 0 if it was posted.
func (w *Writer) result(m *Message, d *Decision, letter uint64, short brevity) *Publication {
	a := m.Address
	id := m.ID(w.Subjects)
	b := make([]byte, 0, 256+len(d.Response)+len(d.Detail)+len(id))
	b = appendJSON(append(b, `{"deviceId":`...), a.Device)
	b = appendJSON(append(b, `,"kind":`...), string(a.Kind))
	if short >= shortID && len(id) > maxResultID {
		b = appendJSON(append(b, `,"id":`...), strings.ToValidUTF8(id[:maxResultID], ""))
		b = strconv.AppendInt(append(b, `,"idBytes":`...), int64(len(id)), 10)
	} else {
		b = appendJSON(append(b, `,"id":`...), id)
	}
	if d.Reason == "" {
		b = appendPosted(b, d, short)
	} else {
		b = appendRefused(b, d, letter, short)
	}
	if d.Items != nil {
		b = appendItems(b, d.Items, short)
	}
	source := ""
	if w.Source != nil && a.Kind != Unknown {
		source = w.Source(a.Device)
	}
	h := publisher.CloudEvent(publisher.TypeResult, m.UniqueID(w.Subjects), source, a.Token, d.At)
	// The header takes printable ASCII only: an id of other bytes is in the body.
	h[publisher.HeaderCausation] = []string{IdempotencyKey(id)}
	if fixes := d.fixes(a); len(fixes) > 0 {
		h[HeaderPosted] = fixes
	}
	if d.Trace != nil {
		d.Trace(h)
	}
	p := &Publication{Header: h, Body: append(b, '}')}
	if a.Kind != Unknown {
		p.Subject = w.Subjects.Result(string(a.Kind), a.Token)
	}
	return p
}

// appendPosted writes the members of the result of a message that was posted.
func appendPosted(b []byte, d *Decision, short brevity) []byte {
	b = strconv.AppendInt(append(b, `,"posted":true,"status":`...), int64(d.Status), 10)
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(d.Attempts), 10)
	b = append(b, `,"postedAt":"`...)
	b = d.At.UTC().AppendFormat(b, publisher.TimeFormat)
	b = append(b, `","response":`...)
	if short >= noResponse {
		b = append(b, `null,"responseBytes":`...)
		return strconv.AppendInt(b, int64(len(d.Response)), 10)
	}
	return appendResponse(b, d.Response)
}

// appendRefused writes the members of the result of a message that became a
// dead letter.
func appendRefused(b []byte, d *Decision, letter uint64, short brevity) []byte {
	reason, detail := Text(d.Reason), Text(d.Detail)
	if short >= noDetail {
		reason, detail = redact.Cut(reason, brief), ""
	}
	b = appendJSON(append(b, `,"posted":false,"reason":`...), reason)
	b = appendJSON(append(b, `,"error":`...), detail)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(d.Status), 10)
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(d.Attempts), 10)
	return strconv.AppendUint(append(b, `,"deadLetter":`...), letter, 10)
}

// appendItems writes the outcomes of the elements of a batch.
func appendItems(b []byte, items []ElementResult, short brevity) []byte {
	if short >= noItems {
		return strconv.AppendInt(append(b, `,"itemCount":`...), int64(len(items)), 10)
	}
	b = append(b, `,"items":[`...)
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"status":`...), int64(item.Status), 10)
		b = strconv.AppendBool(append(b, `,"posted":`...), item.Posted)
		if item.Error != "" && short < noDetail {
			b = appendJSON(append(b, `,"error":`...), Text(item.Error))
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// maxFixes bounds the fixes in the result of a batch, the last ones: more of one
// device are not remembered.
const maxFixes = 64

// fixes are the locations that were posted, as HeaderPosted has them.
func (d *Decision) fixes(a Address) []string {
	if d.Fix != nil && d.Reason == "" {
		return []string{d.Fix.String()}
	}
	var list []string
	for i := len(d.Items) - 1; i >= 0 && len(list) < maxFixes; i-- {
		if d.Items[i].Posted {
			if f, err := d.reader.Read(a.Kind, a.Device, d.Posts.Elements[i]); err == nil {
				list = append(list, f.Fix.String())
			}
		}
	}
	slices.Reverse(list)
	return list
}

// appendResponse keeps the result valid JSON for every answer of the API: JSON as
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
