package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"plaspy-bridge/auth/isotime"
	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// Forms are forms of other products that are accepted as locations.
type Forms struct {
	OwnTracks bool // a message with _type location
	Traccar   bool // a position, alone or as the server forwards it
}

// FormNames are the names that [ParseForms] knows.
var FormNames = []string{"owntracks", "traccar"}

// ParseForms reads the names of forms, in any case.
func ParseForms(names []string) (f Forms, err error) {
	for _, name := range names {
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "":
		case FormNames[0]:
			f.OwnTracks = true
		case FormNames[1]:
			f.Traccar = true
		default:
			return f, fmt.Errorf("form %q is none of %s", name, strings.Join(FormNames, ", "))
		}
	}
	return f, nil
}

// knots is the speed of one knot in km/h.
const knots = 1.852

// translate makes a location of an object in another product's form. It returns
// nil if the form is not known; one that is known and not accepted is an error.
func (f Forms) translate(body []byte) ([]byte, error) {
	own, err := fields("", body, true, "_type", "lat", "lon", "tst", "fixTime", "position")
	if err != nil {
		return nil, nil //nolint:nilerr // the caller reports it
	}
	switch {
	case own[0] != nil:
		return f.ownTracks(body, own[0])
	case own[4] != nil:
		return f.traccar(body)
	case own[5] != nil && own[5][0] == '{':
		return f.traccar(own[5])
	}
	return nil, nil
}

// ownTracks reads a message of OwnTracks; see https://owntracks.org/booklet/tech/json/.
func (f Forms) ownTracks(body, kind []byte) ([]byte, error) {
	text, ok := rawjson.Unquote(kind)
	if !ok {
		return nil, nil
	}
	if string(text) != "location" {
		return nil, &FieldError{"body", "is an OwnTracks message of type " + strconv.Quote(redact.Cut(string(text), brief)) + ", which is no location"}
	}
	if !f.OwnTracks {
		return nil, notAccepted("an OwnTracks location", FormNames[0])
	}
	var m struct {
		Lat  json.RawMessage `json:"lat"`
		Lon  json.RawMessage `json:"lon"`
		Time json.Number     `json:"tst"`
		Vel  *float64        `json:"vel"`
		Cog  *float64        `json:"cog"`
		Batt *float64        `json:"batt"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, &FieldError{"body", "is an OwnTracks location with a field of another type"}
	}
	seconds, err := m.Time.Float64()
	if err != nil || !(seconds >= 0 && seconds < 1e11) {
		return nil, &FieldError{"tst", "must be a time in seconds since 1970"}
	}
	at := time.UnixMilli(int64(math.Round(seconds * 1000)))
	return location(at, [2]string{"lat", "lon"}, m.Lat, m.Lon, m.Vel, m.Cog, m.Batt)
}

// traccar reads a position of Traccar; see https://www.traccar.org/api-reference/.
func (f Forms) traccar(body []byte) ([]byte, error) {
	var m struct {
		Lat        json.RawMessage `json:"latitude"`
		Lon        json.RawMessage `json:"longitude"`
		Time       string          `json:"fixTime"`
		Speed      *float64        `json:"speed"` // knots
		Course     *float64        `json:"course"`
		Attributes struct {
			Battery *float64 `json:"batteryLevel"`
		} `json:"attributes"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, &FieldError{"body", "is like a Traccar position, with a field of another type"}
	}
	if !f.Traccar {
		return nil, notAccepted("a Traccar position", FormNames[1])
	}
	at, _, err := isotime.Parse(m.Time)
	if err != nil {
		return nil, &FieldError{"fixTime", "must be a time in ISO 8601"}
	}
	if m.Speed != nil {
		speed := math.Round(*m.Speed*knots*100) / 100
		m.Speed = &speed
	}
	return location(at, [2]string{"latitude", "longitude"}, m.Lat, m.Lon, m.Speed, m.Course, m.Attributes.Battery)
}

// location writes a location as the API documents it. Latitude and longitude keep
// their spelling.
func location(at time.Time, names [2]string, lat, lon []byte, speed, course, battery *float64) ([]byte, error) {
	for i, raw := range [2][]byte{lat, lon} {
		if _, err := degrees(names[i], orNil(raw), [2]float64{90, 180}[i]); err != nil {
			return nil, err
		}
	}
	b := append(make([]byte, 0, 160), `{"dateTime":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.999Z07:00")
	b = append(append(b, `","latitude":`...), lat...)
	b = append(append(b, `,"longitude":`...), lon...)
	for _, v := range []struct {
		name  string
		value *float64
	}{{"speed", speed}, {"course", course}, {"battery", battery}} {
		if v.value == nil || *v.value < 0 {
			continue // OwnTracks writes -1 if it does not know
		}
		value := *v.value
		if v.name == "battery" {
			value = math.Round(value) // an integer at the API
		}
		b = append(append(append(b, `,"`...), v.name...), `":`...)
		b = strconv.AppendFloat(b, value, 'f', -1, 64)
	}
	return append(b, '}'), nil
}

func orNil(raw []byte) []byte {
	if len(raw) == 0 || rawjson.IsNull(raw) {
		return nil
	}
	return raw
}

func notAccepted(what, name string) error {
	return &FieldError{"body", "is " + what + "; BRIDGE_INBOUND_FORMS=" + name + " accepts it"}
}

// recognized names a body that is no JSON object, if it is of a known kind.
func recognized(body []byte, err error) error {
	body = trim(body)
	upper := string(bytes.ToUpper(body[:min(len(body), 6)]))
	switch {
	case len(body) == 0:
		return &FieldError{"body", "is empty"}
	case body[0] == '[':
		return &FieldError{"body", "is a JSON array, and not an object"}
	case body[0] == '<':
		return &FieldError{"body", "is XML or HTML, and not a JSON object"}
	case strings.HasPrefix(upper, "$G") || strings.HasPrefix(upper, "!AIVD"):
		return &FieldError{"body", "is an NMEA sentence, and not a JSON object"}
	case slices.Contains([]string{"##,IME", "*HQ,"}, upper):
		return &FieldError{"body", "is a message of a GPS tracker's own protocol, and not a JSON object"}
	}
	return err
}
