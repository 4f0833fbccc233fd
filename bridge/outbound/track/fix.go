package track

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/plaspy/rawjson"
	"plaspy-bridge/publisher"
)

// States of a device's digital inputs.
const (
	InputsUnknown int8 = -1
	InputsOff     int8 = 0
	InputsOn      int8 = 1
)

// ErrFix is the error of a location that cannot be published.
var ErrFix = errors.New("location is not usable")

// Parser reads locations. Its zero value cannot be used; see [NewParser].
type Parser struct {
	ignore func(key []byte) bool
	time   func(string) (time.Time, error)
}

// NewParser makes a parser. A change of the ignored fields alone is no change of
// a location. parseTime reads an ISO 8601 time.
func NewParser(ignored []string, parseTime func(string) (time.Time, error)) *Parser {
	return &Parser{ignore: rawjson.Ignore(ignored...), time: parseTime}
}

// Hash is the hash of a location without the ignored fields. Two locations of a
// device with the same hash are the same.
func (p *Parser) Hash(raw []byte) (uint64, error) {
	hash, err := rawjson.Hash(raw, p.ignore)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrFix, err)
	}
	return hash, nil
}

// Fix is a location with the fields that the bridge uses decoded. Its slices
// point into the bytes that it was read from. A fix is not changed once it was
// parsed.
type Fix struct {
	Raw  []byte
	Hash uint64
	Time time.Time

	DateTime, Latitude, Longitude []byte // as the API spelled them

	Lat, Lon    float64 // degrees, WGS 84
	Speed       float64 // km/h or the account's unit; NaN: absent
	Input       int8
	Alerts      []string // each once, and only names that fit into a subject
	AlertsKnown bool     // alerts was absent, null or an array of strings
	Unnamed     error    // the first alert with a name that does not fit into a subject
	Texts       []byte   // a JSON array
	Critical    bool
	Fields      Fields

	Backfilled bool // it was read from a gap
}

// Fix decodes a location with that hash. Its error wraps [ErrFix], names the
// field, and shows no value.
func (p *Parser) Fix(raw []byte, hash uint64) (*Fix, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrFix)
	}
	f := &Fix{Raw: raw, Hash: hash, Speed: math.NaN(), Input: InputsUnknown, AlertsKnown: true, Texts: noTexts}
	if err := rawjson.Members(raw, f.member); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFix, err)
	}
	if f.DateTime == nil {
		return nil, fmt.Errorf("%w: it has no dateTime", ErrFix)
	}
	var err error
	if f.Time, err = p.Time(f.DateTime); err != nil {
		return nil, err
	}
	if f.Lat, err = Degrees(f.Latitude, "latitude", 90); err != nil {
		return nil, err
	}
	if f.Lon, err = Degrees(f.Longitude, "longitude", 180); err != nil {
		return nil, err
	}
	f.Fields = fieldsOf(raw)
	return f, nil
}

var noTexts = []byte("[]")

// outline is the fix without the bytes of its location, and with those that
// events of its alerts need in memory of their own.
func (f *Fix) outline() *Fix {
	o := *f
	o.Raw = nil
	b := make([]byte, 0, len(f.DateTime)+len(f.Latitude)+len(f.Longitude)+len(f.Texts))
	for _, part := range []*[]byte{&o.DateTime, &o.Latitude, &o.Longitude, &o.Texts} {
		start := len(b)
		b = append(b, *part...)
		*part = b[start:len(b):len(b)]
	}
	return &o
}

// Time reads a dateTime as the API spelled it. Its error wraps [ErrFix].
func (p *Parser) Time(value []byte) (time.Time, error) {
	text, ok := rawjson.Unquote(value)
	if !ok {
		return time.Time{}, fmt.Errorf("%w: dateTime is not a string", ErrFix)
	}
	at, err := p.time(string(text))
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: dateTime is not an ISO 8601 time", ErrFix)
	}
	return at, nil
}

func (f *Fix) member(key, value []byte) bool {
	switch string(key) {
	case "dateTime":
		f.DateTime = value
	case "latitude":
		f.Latitude = value
	case "longitude":
		f.Longitude = value
	case "speed":
		if v, ok := rawjson.Number(value); ok {
			f.Speed = v
		}
	case "inputs":
		f.Input = anyTrue(value)
	case "alerts":
		f.Alerts, f.AlertsKnown = stringList(value)
		f.Alerts, f.Unnamed = named(f.Alerts)
	case "alertTexts":
		if len(value) > 0 && value[0] == '[' {
			f.Texts = value
		}
	case "hasCriticalAlert":
		f.Critical = string(value) == "true"
	}
	return true
}

// Degrees reads a latitude or longitude. Its limit is 90 or 180.
func Degrees(value []byte, field string, limit float64) (float64, error) {
	if value == nil {
		return 0, fmt.Errorf("%w: it has no %s", ErrFix, field)
	}
	v, ok := rawjson.Number(value)
	if !ok {
		return 0, fmt.Errorf("%w: %s is not a number", ErrFix, field)
	}
	if v < -limit || v > limit {
		return 0, fmt.Errorf("%w: %s is not between -%g and %g", ErrFix, field, limit, limit)
	}
	return v, nil
}

// anyTrue reads an array of booleans.
func anyTrue(value []byte) int8 {
	state := InputsUnknown
	err := rawjson.Elements(value, func(e []byte) bool {
		switch string(e) {
		case "true":
			state = InputsOn
		case "false":
			state = max(state, InputsOff)
		}
		return state != InputsOn
	})
	if err != nil {
		return InputsUnknown
	}
	return state
}

// named leaves out the names that do not fit into a subject; err is the first
// one's.
func named(alerts []string) (fit []string, err error) {
	fit = alerts
	for i, a := range alerts {
		_, bad := publisher.Token(a)
		switch {
		case bad != nil && err == nil:
			fit, err = slices.Clone(alerts[:i]), bad
		case bad == nil && err != nil:
			fit = append(fit, a)
		}
	}
	return fit, err
}

// Strings reads an array of strings, each once, in order. It returns none for
// anything else.
func Strings(value []byte) []string {
	list, _ := stringList(value)
	return list
}

// stringList reads an array of strings, each once, in order, without empty strings
// and nulls. It returns false for anything else.
func stringList(value []byte) ([]string, bool) {
	if rawjson.IsNull(value) {
		return nil, true
	}
	var list []string
	known := true
	err := rawjson.Elements(value, func(e []byte) bool {
		if rawjson.IsNull(e) {
			return true
		}
		text, ok := rawjson.Unquote(e)
		known = known && ok
		if s := string(text); ok && s != "" && !slices.Contains(list, s) {
			list = append(list, s)
		}
		return known
	})
	if err != nil || !known {
		return nil, false
	}
	return list, true
}
