package plaspy_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"plaspy-bridge/bridge/schema/plaspy"
	"plaspy-bridge/publisher"
)

func TestEncodingIsThePublishers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := string(rapid.SliceOf(rapid.Byte()).Draw(t, "id"))
		if got, want := plaspy.EncodeDevice(id), publisher.Encode(id); got != want {
			t.Fatalf("EncodeDevice(%q) = %q, want %q", id, got, want)
		}
		token := rapid.StringMatching(`[a-c=.0-9A-F]{0,8}`).Draw(t, "token")
		got, err := plaspy.DecodeDevice(token)
		want, wantErr := publisher.Decode(token)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Fatalf("DecodeDevice(%q) = %q, %v, want %q, %v", token, got, err, want, wantErr)
		}
	})
}

func TestParseSubject(t *testing.T) {
	for subject, want := range map[string]plaspy.Address{
		plaspy.LocationSubject("dev 1"):                    {Direction: plaspy.KindLocation, Kind: plaspy.KindLocation, DeviceID: "dev 1"},
		plaspy.AlertSubject("a.b", "High Speed"):           {Direction: plaspy.KindAlert, Kind: plaspy.KindAlert, DeviceID: "a.b", Alert: "High Speed"},
		plaspy.DeviceSubject("d"):                          {Direction: plaspy.KindDevice, Kind: plaspy.KindDevice, DeviceID: "d"},
		plaspy.ResultSubject(plaspy.KindAlert, "d"):        {Direction: plaspy.KindResult, Kind: plaspy.KindAlert, DeviceID: "d"},
		plaspy.DeadLetterSubject(plaspy.KindLocation, "d"): {Direction: plaspy.KindDeadLetter, Kind: plaspy.KindLocation, DeviceID: "d"},
		"plaspy.dlq.unknown":                               {Direction: plaspy.KindDeadLetter, Kind: plaspy.KindUnknown},
		plaspy.InLocationSubject("d"):                      {Direction: plaspy.KindInbound, Kind: plaspy.KindLocation, DeviceID: "d"},
		plaspy.InAlertSubject("d"):                         {Direction: plaspy.KindInbound, Kind: plaspy.KindAlert, DeviceID: "d"},
	} {
		if got, err := plaspy.ParseSubject(subject); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", subject, got, err, want)
		}
	}
	for _, subject := range []string{"", "plaspy", "plaspy.location", "plaspy.location.a.b", "plaspy.location.a b", "plaspy.alert.d", "plaspy.in.unknown", "plaspy.result.device.d", "other.location.d", "plaspy.api.devices"} {
		if got, err := plaspy.ParseSubject(subject); !errors.Is(err, plaspy.ErrUnknown) {
			t.Errorf("%q: %+v, %v", subject, got, err)
		}
	}
}

// TestLocationKeepsWhatItDoesNotKnow decodes fields of unknown names and types.
func TestLocationKeepsWhatItDoesNotKnow(t *testing.T) {
	const text = `{"deviceId":"d","observedAt":"2026-01-02T03:04:05.678Z","groups":["7"],"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1,"speed":"fast","course":"north","rpm":900,"own":[1]}}`
	v, err := plaspy.Decode("plaspy.location.d", nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l := v.(*plaspy.LocationEvent).Location
	if l.Latitude != 4.7 || l.Speed != nil || l.Course != nil || l.RPM == nil || *l.RPM != 900 {
		t.Errorf("%+v", l)
	}
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(l.Raw), `{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1,"speed":"fast","course":"north","rpm":900,"own":[1]}`; got != want {
		t.Errorf("raw %s, want %s", got, want)
	}
	if string(again) != text {
		t.Errorf("again %s, want %s", again, text)
	}
	if _, err := plaspy.Decode("plaspy.location.d", nil, []byte(`{"deviceId":"d","location":{"dateTime":"2026-01-02T03:04:01Z"}}`)); err == nil {
		t.Error("a location without a position is decoded")
	}
}

func TestDecodeGoesByTheTypeOfACopy(t *testing.T) {
	header := map[string][]string{"ce-type": {"com.plaspy.alert"}}
	v, err := plaspy.Decode("copy.of.something", header, []byte(`{"deviceId":"d","alert":"A","state":"raised","texts":["a",7,null]}`))
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := v.(*plaspy.AlertEvent); !ok || a.State != plaspy.Raised || !reflect.DeepEqual(a.Texts, plaspy.Texts{"a", "7", "null"}) {
		t.Errorf("%+v", v)
	}
	if _, err := plaspy.Decode("copy.of.something", nil, nil); !errors.Is(err, plaspy.ErrUnknown) {
		t.Errorf("without a type: %v", err)
	}
}

func TestDecodeInbound(t *testing.T) {
	const at = `"dateTime":"2026-01-02T03:04:01Z"`
	const bare = `{` + at + `,"latitude":1,"longitude":2}`
	for name, tt := range map[string]struct {
		contentType, body string
		n                 int
	}{
		"bare":       {"", bare, 1},
		"wrapped":    {"", `{"from":null,"location":` + bare + `}`, 1},
		"array":      {"", ` [` + bare + `,{"location":` + bare + `}]`, 2},
		"lines":      {"application/x-ndjson; charset=utf-8", bare + "\n\n{\"location\":" + bare + "}\n", 2},
		"structured": {"application/cloudevents+json", `{"specversion":"1.0","data":` + bare + `}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := plaspy.Decode("plaspy.in.location.d", map[string][]string{"content-type": {tt.contentType}}, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			list := v.([]plaspy.InboundLocation)
			if len(list) != tt.n {
				t.Fatalf("%d locations, want %d", len(list), tt.n)
			}
			for _, l := range list {
				if l.Location.Latitude != 1 || l.Location.DateTime == "" {
					t.Errorf("%+v", l)
				}
			}
		})
	}
	v, err := plaspy.Decode("plaspy.in.alert.d", nil, []byte(`{"alert":"SOS",`+at+`}`))
	if err != nil {
		t.Fatal(err)
	}
	if a := v.(*plaspy.InboundAlert); a.AlertName != "SOS" {
		t.Errorf("%+v", a)
	}
	for _, body := range []string{"", "not JSON", "{}"} {
		if v, err := plaspy.Decode("plaspy.in.location.d", nil, []byte(body)); err == nil {
			t.Errorf("%q: %+v", body, v)
		}
	}
}

func TestDecodeAnswer(t *testing.T) {
	var answer plaspy.DevicesAnswer
	if err := plaspy.DecodeAnswer(nil, []byte(`{"success":true,"devices":[{"id":"d","min":7,"own":1}]}`), &answer); err != nil {
		t.Fatal(err)
	}
	if !answer.Success || len(answer.Devices) != 1 || answer.Devices[0].ID != "d" {
		t.Errorf("%+v", answer)
	}
	err := plaspy.DecodeAnswer(map[string][]string{"Nats-Service-Error": {"no room"}, "Nats-Service-Error-Code": {"429"}}, nil, &answer)
	if q, ok := errors.AsType[*plaspy.QueryError](err); !ok || q.Code != 429 || q.Error() != "429 no room" {
		t.Errorf("%v", err)
	}
}
