package message

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/plaspy/rawjson"
)

// FieldError is an inbound message that cannot be posted as it is.
type FieldError struct {
	Field  string // as a path: "location.latitude"; "body" for the whole
	Reason string
}

// Error names the field and what is wrong with it, never its value.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Form is an inbound message that was read: what to post, and for a location
// its fix.
type Form struct {
	Body []byte
	Fix  Fix
}

// Read reads an inbound message in any form of the contract and makes the
// documented body of it. What is not in the documentation is left out, but for
// what is inside a location: that is passed on byte for byte. The error is a
// [*FieldError].
func Read(kind Kind, deviceID string, body []byte) (Form, error) {
	if !utf8.Valid(body) {
		return Form{}, &FieldError{"body", "is not UTF-8"}
	}
	if kind == Alert {
		return parseAlert(deviceID, body)
	}
	return parseLocation(deviceID, body)
}

func parseLocation(deviceID string, body []byte) (Form, error) {
	top, err := fields("", body, "deviceId", "from", "to", "location")
	if err != nil {
		return Form{}, err
	}
	device, from, to, raw, path := top[0], top[1], top[2], top[3], "location."
	if err := sameDevice(device, deviceID); err != nil {
		return Form{}, err
	}
	if raw == nil {
		if from != nil || to != nil {
			return Form{}, &FieldError{"location", "is missing"}
		}
		// A bare location: the message is the location.
		raw, path = trim(body), ""
	} else if raw[0] != '{' {
		return Form{}, &FieldError{"location", "must be an object"}
	}
	loc, err := fields(path, raw, "dateTime", "latitude", "longitude")
	if err != nil {
		return Form{}, err
	}
	f := Form{}
	if f.Fix.At, err = timeOf(path+"dateTime", loc[0]); err != nil {
		return Form{}, err
	}
	if f.Fix.Lat, err = degrees(path+"latitude", loc[1], 90); err != nil {
		return Form{}, err
	}
	if f.Fix.Lon, err = degrees(path+"longitude", loc[2], 180); err != nil {
		return Form{}, err
	}
	if from, to, err = span(from, to, loc[0]); err != nil {
		return Form{}, err
	}
	b := appendSpan(make([]byte, 0, len(raw)+len(from)+len(to)+32), from, to)
	f.Body = append(append(append(b, `,"location":`...), raw...), '}')
	return f, nil
}

func parseAlert(deviceID string, body []byte) (Form, error) {
	top, err := fields("", body, "deviceId", "from", "to", "alertName", "alert", "dateTime")
	if err != nil {
		return Form{}, err
	}
	device, from, to, name, field, at := top[0], top[1], top[2], top[3], "alertName", top[5]
	if err := sameDevice(device, deviceID); err != nil {
		return Form{}, err
	}
	if name == nil {
		// An outbound alert calls it so.
		name, field = top[4], "alert"
	}
	if name != nil {
		if s, ok := rawjson.Unquote(name); !ok || len(s) == 0 {
			return Form{}, &FieldError{field, "must be a string that is not empty"}
		}
	}
	if from != nil && to != nil {
		at = nil // a range of its own
	} else if at == nil {
		missing := "from"
		if from != nil {
			missing = "to"
		}
		return Form{}, &FieldError{missing, "is missing, and so is dateTime"}
	}
	if at != nil {
		if name == nil {
			return Form{}, &FieldError{"alertName", "is missing"}
		}
		if _, err := timeOf("dateTime", at); err != nil {
			return Form{}, err
		}
	}
	if from, to, err = span(from, to, at); err != nil {
		return Form{}, err
	}
	b := appendSpan(make([]byte, 0, len(from)+len(to)+len(name)+40), from, to)
	if name != nil {
		b = append(append(b, `,"alertName":`...), name...)
	}
	return Form{Body: append(b, '}')}, nil
}

// members are the values of some of an object's members, as they are spelled;
// nil for one that is absent.
type members [6][]byte

// fields returns the named members of an object, six at most, in the order of the
// names. A member that is null counts as absent; one that is given twice is an
// error, because nobody can tell which of them the API would take.
func fields(path string, object []byte, names ...string) (values members, err error) {
	twice := ""
	err = rawjson.Members(object, func(key, value []byte) bool {
		for i, name := range names {
			if string(key) != name {
				continue
			}
			if values[i] != nil {
				twice = name
				return false
			}
			values[i] = value
		}
		return true
	})
	if twice != "" {
		return values, &FieldError{path + twice, "is given twice"}
	}
	if err != nil {
		return values, &FieldError{"body", "is not a JSON object: " + err.Error()}
	}
	for i, value := range values {
		if value != nil && rawjson.IsNull(value) {
			values[i] = nil
		}
	}
	return values, nil
}

func sameDevice(raw []byte, deviceID string) error {
	if raw == nil {
		return nil
	}
	id, ok := rawjson.Unquote(raw)
	switch {
	case !ok:
		return &FieldError{"deviceId", "must be a string"}
	case string(id) != deviceID:
		return &FieldError{"deviceId", "differs from the device of the subject"}
	}
	return nil
}

// span checks the range and fills in its ends from otherwise.
func span(from, to, otherwise []byte) (f, t []byte, err error) {
	if from == nil {
		from = otherwise
	}
	if to == nil {
		to = otherwise
	}
	begin, err := timeOf("from", from)
	if err != nil {
		return nil, nil, err
	}
	end, err := timeOf("to", to)
	if err != nil {
		return nil, nil, err
	}
	if end.Before(begin) {
		return nil, nil, &FieldError{"to", "is before from"}
	}
	return from, to, nil
}

func appendSpan(b, from, to []byte) []byte {
	b = append(append(b, `{"from":`...), from...)
	return append(append(b, `,"to":`...), to...)
}

func degrees(field string, raw []byte, limit float64) (float64, error) {
	if raw == nil {
		return 0, &FieldError{field, "is missing"}
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, &FieldError{field, "must be a number"}
	}
	if v < -limit || v > limit {
		return 0, &FieldError{field, fmt.Sprintf("must be between -%g and %g", limit, limit)}
	}
	return v, nil
}

// timeLayouts are the spellings of ISO 8601 that are taken. Fractions of a
// second, after a point or a comma, are in each of them.
var timeLayouts = [...]string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07", "2006-01-02T15:04Z07:00",
	"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05",
}

func timeOf(field string, raw []byte) (time.Time, error) {
	if raw == nil {
		return time.Time{}, &FieldError{field, "is missing"}
	}
	s, ok := rawjson.Unquote(raw)
	if !ok {
		return time.Time{}, &FieldError{field, "must be a string"}
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, string(s)); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &FieldError{field, "must be a time in ISO 8601, such as 2006-01-02T15:04:05Z"}
}

func trim(body []byte) []byte {
	space := func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	for len(body) > 0 && space(body[0]) {
		body = body[1:]
	}
	for len(body) > 0 && space(body[len(body)-1]) {
		body = body[:len(body)-1]
	}
	return body
}
