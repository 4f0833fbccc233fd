package message

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestForeignForms(t *testing.T) {
	const (
		own     = `{"_type":"location","acc":12,"batt":87.6,"cog":270,"lat":4.70,"lon":-74.1,"tid":"a","tst":1767323041,"vel":54}`
		traccar = `{"id":9,"deviceId":4,"protocol":"osmand","fixTime":"2026-01-02T03:04:01.500+00:00","latitude":4.70,"longitude":-74.1,"speed":10,"course":12.5,"attributes":{"batteryLevel":50}}`
	)
	all := Reader{Forms{OwnTracks: true, Traccar: true}}
	for _, tt := range []struct{ name, body, want string }{
		{"OwnTracks", own, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1,"speed":54,"course":270,"battery":88}}`},
		{"OwnTracks that does not know", `{"_type":"location","lat":1,"lon":2,"tst":1767323041.5,"vel":-1,"cog":-1}`,
			`{"from":"2026-01-02T03:04:01.5Z","to":"2026-01-02T03:04:01.5Z","location":{"dateTime":"2026-01-02T03:04:01.5Z","latitude":1,"longitude":2}}`},
		{"Traccar", traccar, `{"from":"2026-01-02T03:04:01.5Z","to":"2026-01-02T03:04:01.5Z","location":{"dateTime":"2026-01-02T03:04:01.5Z","latitude":4.70,"longitude":-74.1,"speed":18.52,"course":12.5,"battery":50}}`},
		{"Traccar, forwarded", `{"device":{"uniqueId":"x"},"position":` + traccar + `}`, `{"from":"2026-01-02T03:04:01.5Z","to":"2026-01-02T03:04:01.5Z","location":{"dateTime":"2026-01-02T03:04:01.5Z","latitude":4.70,"longitude":-74.1,"speed":18.52,"course":12.5,"battery":50}}`},
		{"a location of our own with such fields", `{"dateTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":2,"_type":"x","fixTime":"y"}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":2,"_type":"x","fixTime":"y"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := all.Read(Location, "d", []byte(tt.body))
			if err != nil || string(got.Body) != tt.want {
				t.Errorf("%v\ngot  %s\nwant %s", err, got.Body, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name   string
		reader Reader
		body   string
		want   string // part of the error
	}{
		{"OwnTracks that is not accepted", Reader{}, own, "is an OwnTracks location; BRIDGE_INBOUND_FORMS=owntracks"},
		{"Traccar that is not accepted", Reader{Forms{OwnTracks: true}}, traccar, "is a Traccar position; BRIDGE_INBOUND_FORMS=traccar"},
		{"another OwnTracks message", all, `{"_type":"lwt","tst":1}`, `is an OwnTracks message of type "lwt"`},
		{"OwnTracks without a time", all, `{"_type":"location","lat":1,"lon":2}`, "tst: "},
		{"OwnTracks out of range", all, `{"_type":"location","lat":91,"lon":2,"tst":1}`, "lat: must be between"},
		{"OwnTracks of strings", all, `{"_type":"location","lat":1,"lon":2,"tst":1,"vel":"x"}`, "another type"},
		{"Traccar without a position", all, `{"fixTime":"2026-01-02T03:04:01Z"}`, "latitude: is missing"},
		{"Traccar with another time", all, `{"fixTime":"yesterday","latitude":1,"longitude":2}`, "fixTime: "},
		{"NMEA", all, "$GPRMC,081836,A,3751.65,S,14507.36,E", "NMEA"},
		{"HTML", all, "<html>", "HTML"},
		{"array", all, "[1]", "array"},
		{"empty", all, " ", "empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.reader.Read(Location, "d", []byte(tt.body))
			if _, ok := errors.AsType[*FieldError](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestParseForms(t *testing.T) {
	if f, err := ParseForms([]string{" OwnTracks", "traccar", ""}); err != nil || f != (Forms{true, true}) {
		t.Errorf("%v %v", f, err)
	}
	if _, err := ParseForms([]string{"nmea"}); err == nil {
		t.Error("nmea is accepted")
	}
}

// FuzzForms: any body that is accepted in another product's form is a location in the
// documented one.
func FuzzForms(f *testing.F) {
	f.Add([]byte(`{"_type":"location","lat":4.70,"lon":-74.1,"tst":1767323041,"vel":1e300}`))
	f.Add([]byte(`{"fixTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":2,"speed":1.5,"attributes":{"batteryLevel":1e9}}`))
	f.Add([]byte(`{"position":{"fixTime":"2026-01-02","latitude":1,"longitude":2}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Reader{Forms{true, true}}.Read(Location, "d", body)
		if err != nil {
			return
		}
		again, err := Reader{}.Read(Location, "d", got.Body)
		if err != nil || string(again.Body) != string(got.Body) || !json.Valid(got.Body) {
			t.Fatalf("converted again: %v: %s, first %s", err, again.Body, got.Body)
		}
	})
}
