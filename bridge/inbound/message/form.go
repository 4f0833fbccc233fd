package message

import (
	"bytes"
	"fmt"
	"time"
	"unicode/utf8"

	"plaspy-bridge/auth/isotime"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// FieldError is an inbound message that cannot be posted as it is.
type FieldError struct {
	Field  string // as a path: "location.latitude"; "body" for the whole
	Reason string
}

// Error names the field and its fault, never its value.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Form is an inbound message that was read: the body to post, and for a location
// its fix.
type Form struct {
	Body []byte
	Fix  Fix
}

// Reader reads the bodies of inbound messages. Its zero value reads the forms of
// the contract.
type Reader struct {
	// Forms are the forms of other products that are accepted as locations.
	Forms Forms
}

// Read reads a body in any form of the contract and makes the documented body of
// it. Members that are not in the documentation are left out. A location is passed
// on byte for byte, with all its members. An outbound alert is posted in either
// state, because the API's alert has none. The error is a
// [*FieldError].
func (r Reader) Read(kind Kind, deviceID string, body []byte) (Form, error) {
	if !utf8.Valid(body) {
		return Form{}, &FieldError{"body", "is not UTF-8"}
	}
	body = withoutMark(body)
	if kind == Alert {
		return parseAlert(deviceID, body)
	}
	return r.parseLocation(deviceID, body)
}

func (r Reader) parseLocation(deviceID string, body []byte) (Form, error) {
	top, err := fields("", body, false, "deviceId", "from", "to", "location", "dateTime")
	if err != nil {
		return Form{}, recognized(body, err)
	}
	device, from, to, raw, path := top[0], top[1], top[2], top[3], "location."
	if raw == nil && top[4] == nil {
		if raw, err = r.Forms.translate(body); raw != nil || err != nil {
			return locationForm("", raw, nil, nil, err)
		}
	}
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
	return locationForm(path, raw, from, to, nil)
}

// locationForm makes the form of a location; path precedes the names of its fields. An
// error of the step before is passed on.
func locationForm(path string, raw, from, to []byte, err error) (Form, error) {
	if err != nil {
		return Form{}, err
	}
	// A polled location is published as it is, and an event is accepted as it
	// is: of a field that is given twice the last one counts, as it does there.
	loc, err := fields(path, raw, path != "", "dateTime", "latitude", "longitude")
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
	top, err := fields("", body, false, "deviceId", "from", "to", "alertName", "alert", "dateTime")
	if err != nil {
		return Form{}, recognized(body, err)
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
// names. A member that is null counts as absent. One that is given twice is an
// error, because the API might take the other one; unless last says that the last
// one counts.
func fields(path string, object []byte, last bool, names ...string) (values members, err error) {
	twice := ""
	err = rawjson.Members(object, func(key, value []byte) bool {
		for i, name := range names {
			if string(key) != name {
				continue
			}
			if values[i] != nil && !last {
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

// degrees reads a JSON number, as a fix that is polled has it.
func degrees(field string, raw []byte, limit float64) (float64, error) {
	if raw == nil {
		return 0, &FieldError{field, "is missing"}
	}
	v, ok := rawjson.Number(raw)
	if !ok {
		return 0, &FieldError{field, "must be a number"}
	}
	if v < -limit || v > limit {
		return 0, &FieldError{field, fmt.Sprintf("must be between -%g and %g", limit, limit)}
	}
	return v, nil
}

func timeOf(field string, raw []byte) (time.Time, error) {
	if raw == nil {
		return time.Time{}, &FieldError{field, "is missing"}
	}
	s, ok := rawjson.Unquote(raw)
	if !ok {
		return time.Time{}, &FieldError{field, "must be a string"}
	}
	// Polled locations have the same parser: an event that was published is accepted.
	t, _, err := isotime.Parse(string(s))
	if err != nil {
		return time.Time{}, &FieldError{field, "must be a time in ISO 8601, such as 2006-01-02T15:04:05Z"}
	}
	return t, nil
}

// withoutMark drops a byte order mark, which some encoders put first.
func withoutMark(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) }

// trim drops the white space of JSON around a text.
func trim(body []byte) []byte { return bytes.Trim(body, " \t\r\n") }
