package outbound

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// movingInputs is what a fix says of its inputs.
const (
	inputsUnknown int8 = -1
	inputsOff     int8 = 0
	inputsOn      int8 = 1
)

// errFix tells that a location cannot be published as it is.
var errFix = errors.New("location is not usable")

// fix is a location with what the bridge needs of it decoded. Its slices point
// into the bytes that it was read from.
type fix struct {
	raw  []byte
	hash uint64
	time time.Time

	dateTime, latitude, longitude []byte // as spelled

	lat, lon    float64
	speed       float64 // km/h or the account's unit, NaN where absent
	input       int8
	alerts      []string
	alertsKnown bool // alerts was absent, null or an array of strings
	texts       []byte
	critical    bool
	fields      fields

	backfilled bool
}

// parseFix decodes a location. Its error wraps errFix, names the field, and
// shows no value.
func parseFix(raw []byte, hash uint64) (*fix, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: not UTF-8", errFix)
	}
	f := &fix{raw: raw, hash: hash, speed: math.NaN(), input: inputsUnknown, alertsKnown: true, texts: []byte("[]")}
	if err := rawjson.Members(raw, f.member); err != nil {
		return nil, fmt.Errorf("%w: %w", errFix, err)
	}
	if f.dateTime == nil {
		return nil, fmt.Errorf("%w: it has no dateTime", errFix)
	}
	text, ok := rawjson.Unquote(f.dateTime)
	if !ok {
		return nil, fmt.Errorf("%w: dateTime is not a string", errFix)
	}
	var err error
	if f.time, err = plaspy.ParseTime(string(text)); err != nil {
		return nil, fmt.Errorf("%w: dateTime is not an ISO 8601 time", errFix)
	}
	if f.lat, err = degrees(f.latitude, "latitude", 90); err != nil {
		return nil, err
	}
	if f.lon, err = degrees(f.longitude, "longitude", 180); err != nil {
		return nil, err
	}
	f.fields = fieldsOf(raw)
	return f, nil
}

func (f *fix) member(key, value []byte) bool {
	switch string(key) {
	case "dateTime":
		f.dateTime = value
	case "latitude":
		f.latitude = value
	case "longitude":
		f.longitude = value
	case "speed":
		if v, err := strconv.ParseFloat(string(value), 64); err == nil {
			f.speed = v
		}
	case "inputs":
		f.input = anyTrue(value)
	case "alerts":
		f.alerts, f.alertsKnown = stringList(value)
	case "alertTexts":
		if len(value) > 0 && value[0] == '[' {
			f.texts = value
		}
	case "hasCriticalAlert":
		f.critical = string(value) == "true"
	}
	return true
}

func degrees(value []byte, field string, limit float64) (float64, error) {
	if value == nil {
		return 0, fmt.Errorf("%w: it has no %s", errFix, field)
	}
	v, err := strconv.ParseFloat(string(value), 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is not a number", errFix, field)
	}
	if !(math.Abs(v) <= limit) {
		return 0, fmt.Errorf("%w: %s is not between -%g and %g", errFix, field, limit, limit)
	}
	return v, nil
}

// anyTrue reads an array of booleans.
func anyTrue(value []byte) int8 {
	state := inputsUnknown
	err := rawjson.Elements(value, func(e []byte) bool {
		switch string(e) {
		case "true":
			state = inputsOn
		case "false":
			state = max(state, inputsOff)
		}
		return state != inputsOn
	})
	if err != nil {
		return inputsUnknown
	}
	return state
}

// stringList reads an array of strings, each once, in order; false: it is
// something else, and tells nothing.
func stringList(value []byte) ([]string, bool) {
	if rawjson.IsNull(value) {
		return nil, true
	}
	var list []string
	known := true
	err := rawjson.Elements(value, func(e []byte) bool {
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
