package fault

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Location distorts the location that begins at start and ends the body. For
// NoLocation it cuts the body at start.
func (f *Rule) Location(body []byte, start int) []byte {
	raw := body[start:]
	if len(raw) == 0 {
		return body
	}
	switch f.Kind {
	case NoLocation:
		return body[:start]
	case NullIsland:
		raw = setMember(setMember(raw, "latitude", "0"), "longitude", "0")
	case OutOfRange:
		raw = setMember(raw, "latitude", "91.5")
	case BadTime:
		text := f.Body
		if text == "" {
			text = "yesterday"
		}
		raw = setMember(raw, "dateTime", quoted(text))
	case BadUTF8:
		raw = append([]byte("{\"driver\":\"Jos\xe9 \xff\xed\xa0\x80\","), raw[1:]...)
	default:
		return body
	}
	return append(body[:start], raw...)
}

// setMember returns an object with the value of a top-level member replaced, or
// the object itself if it has no such member.
func setMember(object []byte, name, value string) []byte {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return object
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return object
		}
		var old json.RawMessage
		if err := dec.Decode(&old); err != nil {
			return object
		}
		if key == name {
			end := int(dec.InputOffset())
			out := append([]byte{}, object[:end-len(old)]...)
			out = append(out, value...)
			return append(out, object[end:]...)
		}
	}
	return object
}

// List returns a list of devices with the rule's devices changed, or the list
// itself if the kind is not about lists.
func (f *Rule) List(list []byte) []byte {
	if f.Kind == EmptyList {
		return []byte("[]")
	}
	if f.Kind != Duplicate && f.Kind != Expired {
		return list
	}
	var all []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil {
		return list // a test set a broken entry: it stays as broken as before
	}
	var out []string
	for _, raw := range all {
		var info struct{ ID string }
		_ = json.Unmarshal(raw, &info) // without an id it matches only a glob for all
		if f.Device != "" && !glob(f.Device, info.ID) {
			out = append(out, string(raw))
			continue
		}
		if f.Kind == Expired {
			yesterday := time.Now().Add(-24 * time.Hour).UTC().Format(`"` + time.RFC3339 + `"`)
			out = append(out, string(setMember(raw, "expires", yesterday)))
			continue
		}
		out = append(out, string(raw), string(raw))
	}
	return []byte("[" + strings.Join(out, ",") + "]")
}

// quoted returns a text as a JSON string.
func quoted(text string) string {
	b, _ := json.Marshal(text) // a string is always JSON
	return string(b)
}
