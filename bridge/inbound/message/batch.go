package message

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// maxElements is the largest number of locations in one message.
const maxElements = 10000

// headerContentType is the header with the form of a body; its name is matched
// in any case.
const headerContentType = "content-type"

// Content types that say more than JSON.
const (
	typeNDJSON     = "application/x-ndjson"
	typeStructured = "application/cloudevents+json"
)

// Posts are the bodies that a message asks to be posted.
type Posts struct {
	// Elements are bodies for [Reader.Read], in the order in which they are to be
	// posted. They are slices of the message's body.
	Elements [][]byte
	// Batch means that the message is a batch, also of one element: its result
	// has an item for each element.
	Batch bool

	lines bool // the batch is NDJSON
}

// Split reads which bodies a message asks to be posted. The error is a
// [*FieldError] that concerns the whole message.
func Split(m *Message) (Posts, error) {
	body, contentType := m.Body, contentTypeOf(m.Header)
	if contentType == typeStructured {
		var err error
		if body, contentType, err = eventData(body); err != nil {
			return Posts{}, err
		}
	}
	if !utf8.Valid(body) {
		return Posts{}, &FieldError{"body", "is not UTF-8"}
	}
	body = withoutMark(body)
	p := Posts{lines: contentType == typeNDJSON}
	array := trim(body)
	switch {
	case p.lines:
		for line := range bytes.Lines(body) {
			if line = trim(line); len(line) > 0 {
				p.Elements = append(p.Elements, line)
			}
		}
	case len(array) > 0 && array[0] == '[':
		err := rawjson.Elements(array, func(value []byte) bool {
			p.Elements = append(p.Elements, value)
			return len(p.Elements) <= maxElements
		})
		if err != nil {
			return Posts{}, &FieldError{"body", "is not a JSON array: " + err.Error()}
		}
	default:
		p.Elements = [][]byte{body}
		return p, nil
	}
	p.Batch = true
	switch {
	case m.Address.Kind == Alert:
		return Posts{}, &FieldError{"body", "is a batch, which only locations can be"}
	case len(p.Elements) == 0:
		return Posts{}, &FieldError{"body", "is a batch without an element"}
	case len(p.Elements) > maxElements:
		return Posts{}, &FieldError{"body", "is a batch of more than 10000 elements"}
	}
	return p, nil
}

// contentTypeOf returns the media type of a message without its parameters, in
// lower case.
func contentTypeOf(header map[string][]string) string {
	for name, values := range header {
		if len(values) > 0 && strings.EqualFold(name, headerContentType) {
			return mediaType(values[0])
		}
	}
	return ""
}

func mediaType(s string) string {
	if t, _, err := mime.ParseMediaType(s); err == nil {
		return t
	}
	t, _, _ := strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// eventData returns the data of a CloudEvent in structured mode, and its content
// type; see section 3.1 of the JSON event format 1.0.2.
func eventData(body []byte) (data []byte, contentType string, err error) {
	if !utf8.Valid(body) {
		return nil, "", &FieldError{"body", "is not UTF-8"}
	}
	event, err := fields("", withoutMark(body), false, "specversion", "data", "data_base64", "datacontenttype")
	if err != nil {
		return nil, "", recognized(body, err)
	}
	if event[0] == nil {
		return nil, "", &FieldError{"specversion", "is missing in a CloudEvent"}
	}
	text, _ := rawjson.Unquote(event[3])
	contentType = mediaType(string(text))
	switch {
	case event[2] != nil:
		encoded, ok := rawjson.Unquote(event[2])
		if data, err = base64.StdEncoding.DecodeString(string(encoded)); err != nil || !ok {
			return nil, "", &FieldError{"data_base64", "is not base64"}
		}
	case event[1] == nil:
		return nil, "", &FieldError{"data", "is missing in a CloudEvent"}
	default:
		data = event[1]
		// Data that is not JSON is a string.
		if text, ok := rawjson.Unquote(data); ok && contentType == typeNDJSON {
			data = text
		}
	}
	return data, contentType, nil
}

// ElementResult is the result of one element of a batch.
type ElementResult struct {
	Status int    `json:"status"` // of the last answer, 0 if none came
	Posted bool   `json:"posted"`
	Error  string `json:"error,omitempty"` // why it was refused
}

// countRefused is the number of items that were not posted.
func countRefused(items []ElementResult) int {
	n := 0
	for _, item := range items {
		if !item.Posted {
			n++
		}
	}
	return n
}

// Decide concludes a batch: it was posted if all its elements were.
func (r Reader) Decide(p *Posts, items []ElementResult) Decision {
	d := Decision{Items: items, Posts: p, reader: r}
	refused := countRefused(items)
	if refused == 0 {
		return d
	}
	d.Reason = strconv.Itoa(refused) + " of " + strconv.Itoa(len(items)) + " elements were refused"
	for i, item := range items {
		if !item.Posted {
			d.Detail = "element " + strconv.Itoa(i) + ": " + item.Error
			break
		}
	}
	return d
}

// rest writes the elements that were not posted as a batch of their own.
func (p *Posts) rest(items []ElementResult) []byte {
	var b []byte
	for i, element := range p.Elements {
		if i < len(items) && items[i].Posted {
			continue
		}
		switch {
		case len(b) > 0 && p.lines:
			b = append(b, '\n')
		case len(b) > 0:
			b = append(b, ',')
		case !p.lines:
			b = append(b, '[')
		}
		b = append(b, element...)
	}
	if !p.lines {
		b = append(b, ']')
	}
	return b
}

// Bounds of the errors in stored progress.
const (
	maxItemError     = 120
	maxProgressBytes = 32 << 10
)

// run is a number of items in a row that are alike.
type run struct {
	Count int `json:"n"`
	ElementResult
}

// EncodeProgress writes the items that were decided so far, the first ones of a
// batch. Items in a row that are alike take the room of one. If the errors would
// take too much room, they are left out.
func EncodeProgress(items []ElementResult) []byte {
	for _, limit := range [...]int{maxItemError, 0} {
		var runs []run
		for _, item := range items {
			item.Error = redact.Cut(item.Error, limit)
			if n := len(runs); n > 0 && runs[n-1].ElementResult == item {
				runs[n-1].Count++
				continue
			}
			runs = append(runs, run{1, item})
		}
		b, err := json.Marshal(runs)
		if err == nil && (len(b) <= maxProgressBytes || limit == 0) {
			return b
		}
	}
	return nil // cannot happen: runs always marshal
}

// DecodeProgress reads the output of EncodeProgress for a batch of so many elements.
// It reports false if it is not that.
func DecodeProgress(data []byte, elements int) ([]ElementResult, bool) {
	var runs []run
	if err := json.Unmarshal(data, &runs); err != nil {
		return nil, false
	}
	var items []ElementResult
	for _, r := range runs {
		if r.Count < 1 || r.Count > elements-len(items) {
			return nil, false
		}
		for range r.Count {
			items = append(items, r.ElementResult)
		}
	}
	return items, true
}
