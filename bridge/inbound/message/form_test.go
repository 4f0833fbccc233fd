package message

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name       string
		kind       Kind
		body, want string
		field      string // of the error
	}{
		{"whole location", Location, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T04:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1}}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T04:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1}}`, ""},
		{"from defaults", Location, `{"to":"2026-01-02T04:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T04:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}}`, ""},
		{"null is absent", Location, `{"from":null,"to":null,"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}}`, ""},
		{"location byte for byte", Location, ` {"x":1,"location": { "longitude" : -7.41e1,"z\u0041":[1.0,{"a":null}], "dateTime":"2026-01-02T03:04:01.009\u005a","latitude":4.700, "latitud":"\u00e9é" } } `,
			`{"from":"2026-01-02T03:04:01.009\u005a","to":"2026-01-02T03:04:01.009\u005a","location":{ "longitude" : -7.41e1,"z\u0041":[1.0,{"a":null}], "dateTime":"2026-01-02T03:04:01.009\u005a","latitude":4.700, "latitud":"\u00e9é" }}`, ""},
		{"bare location", Location, "\n" + `{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"speed":30} ` + "\n",
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"speed":30}}`, ""},
		{"outbound location", Location, `{"deviceId":"dev 1","name":"Truck","observedAt":"2026-01-02T03:04:05.678Z","backfilled":true,"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}}`, ""},
		{"time without zone", Location, `{"dateTime":"2026-01-02T03:04:01","latitude":90,"longitude":-180}`,
			`{"from":"2026-01-02T03:04:01","to":"2026-01-02T03:04:01","location":{"dateTime":"2026-01-02T03:04:01","latitude":90,"longitude":-180}}`, ""},
		{"other device", Location, `{"deviceId":"dev 2","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}}`, "", "deviceId"},
		{"device of another type", Location, `{"deviceId":1,"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}`, "", "deviceId"},
		{"no location", Location, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z"}`, "", "location"},
		{"location is a list", Location, `{"location":[1]}`, "", "location"},
		{"no dateTime", Location, `{"location":{"latitude":0,"longitude":0}}`, "", "location.dateTime"},
		{"dateTime is no time", Location, `{"location":{"dateTime":"yesterday","latitude":0,"longitude":0}}`, "", "location.dateTime"},
		{"dateTime is a number", Location, `{"dateTime":17,"latitude":0,"longitude":0}`, "", "dateTime"},
		{"no latitude", Location, `{"dateTime":"2026-01-02T03:04:01Z","longitude":0}`, "", "latitude"},
		{"latitude beyond the pole", Location, `{"dateTime":"2026-01-02T03:04:01Z","latitude":90.1,"longitude":0}`, "", "latitude"},
		{"latitude is a string", Location, `{"dateTime":"2026-01-02T03:04:01Z","latitude":"4.7","longitude":0}`, "", "latitude"},
		{"longitude overflows", Location, `{"dateTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":1e999}`, "", "longitude"},
		{"latitude twice", Location, `{"dateTime":"2026-01-02T03:04:01Z","latitude":1,"longitude":1,"latitude":2}`, "", "latitude"},
		{"from is no time", Location, `{"from":"x","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}}`, "", "from"},
		{"to before from", Location, `{"to":"2026-01-02T03:04:00Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0,"longitude":0}}`, "", "to"},
		{"byte order mark", Location, "\xef\xbb\xbf" + `{"dateTime":"2026-01-02","latitude":1,"longitude":2}`,
			`{"from":"2026-01-02","to":"2026-01-02","location":{"dateTime":"2026-01-02","latitude":1,"longitude":2}}`, ""},
		{"byte order mark before an alert", Alert, "\xef\xbb\xbf" + `{"alertName":"a","dateTime":"20260102T030401Z"}`, `{"from":"20260102T030401Z","to":"20260102T030401Z","alertName":"a"}`, ""},
		{"empty", Location, ``, "", "body"},
		{"no object", Location, `[]`, "", "body"},
		{"no JSON", Location, `latitude=4`, "", "body"},
		{"cut off", Location, `{"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":0`, "", "body"},
		{"no UTF-8", Location, "{\"a\":\"\xff\"}", "", "body"},

		{"alert range", Alert, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:05:01Z"}`, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:05:01Z"}`, ""},
		{"alert range with name", Alert, `{"alertName":"SOSButton","from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:05:01Z","extra":1}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:05:01Z","alertName":"SOSButton"}`, ""},
		{"alert at a time", Alert, `{"alertName":"High Speed","dateTime":"2026-01-02T03:04:01Z"}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","alertName":"High Speed"}`, ""},
		{"outbound alert", Alert, `{"deviceId":"dev 1","name":"T","alert":"SpeedLimit","state":"raised","critical":true,"texts":["Speeding"],"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"observedAt":"2026-01-02T03:04:05.678Z"}`,
			`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:04:01Z","alertName":"SpeedLimit"}`, ""},
		{"alert without from", Alert, `{"to":"2026-01-02T03:05:01Z"}`, "", "from"},
		{"alert without to", Alert, `{"from":"2026-01-02T03:05:01Z"}`, "", "to"},
		{"alert time without name", Alert, `{"dateTime":"2026-01-02T03:05:01Z"}`, "", "alertName"},
		{"alert name of another type", Alert, `{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T03:05:01Z","alertName":7}`, "", "alertName"},
		{"alert name empty", Alert, `{"alertName":"","dateTime":"2026-01-02T03:05:01Z"}`, "", "alertName"},
		{"alert of another device", Alert, `{"deviceId":"x","alertName":"a","dateTime":"2026-01-02T03:05:01Z"}`, "", "deviceId"},
		{"alert to before from", Alert, `{"from":"2026-01-02T03:04:01Z","to":"2025-01-02T03:05:01Z"}`, "", "to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Reader{}.Read(tt.kind, "dev 1", []byte(tt.body))
			if tt.field != "" {
				if e, ok := errors.AsType[*FieldError](err); !ok || e.Field != tt.field {
					t.Fatalf("error %v, want one that names %s", err, tt.field)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Body) != tt.want {
				t.Errorf("got  %s\nwant %s", got.Body, tt.want)
			}
		})
	}
}

func TestReadFix(t *testing.T) {
	got, err := Reader{}.Read(Location, "d", []byte(`{"dateTime":"2026-01-02T03:04:01,5+02:00","latitude":4.7,"longitude":-74.1}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 1, 2, 1, 4, 1, 5e8, time.UTC); !got.Fix.At.Equal(want) || got.Fix.Lat != 4.7 || got.Fix.Lon != -74.1 {
		t.Errorf("got %v", got.Fix)
	}
}

// FuzzRead checks that any body that is accepted is the documented body and nothing
// beside it, and reads as itself when it is fed in again.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"from":"2026-01-02T03:04:01Z","to":"2026-01-02T04:04:01Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1}}`,
		`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.70,"longitude":-74.1}`, `{"alertName":"a","dateTime":"2026-01-02T03:04:01Z"}`,
		`{"alert":"a","deviceId":"d","dateTime":"2026-01-02 03:04:01"}`, `{"location":null,"latitude":null}`, `{"a":"\ud800"}`,
	} {
		f.Add(true, []byte(seed))
		f.Add(false, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, alert bool, body []byte) {
		kind, allowed := Location, map[string]bool{"from": true, "to": true, "location": true}
		if alert {
			kind, allowed = Alert, map[string]bool{"from": true, "to": true, "alertName": true}
		}
		got, err := Reader{}.Read(kind, "d", body)
		if err != nil {
			if e, ok := errors.AsType[*FieldError](err); !ok || e.Field == "" || e.Reason == "" {
				t.Fatalf("error without a field: %v", err)
			}
			return
		}
		var posted map[string]json.RawMessage
		if err := json.Unmarshal(got.Body, &posted); err != nil {
			t.Fatalf("what would be posted is not JSON: %v: %s", err, got.Body)
		}
		for name := range posted {
			if !allowed[name] {
				t.Fatalf("%q would be posted: %s", name, got.Body)
			}
		}
		if !json.Valid(withoutMark(body)) {
			t.Fatalf("accepted invalid JSON: %q", body)
		}
		again, err := Reader{}.Read(kind, "d", got.Body)
		if err != nil || string(again.Body) != string(got.Body) {
			t.Fatalf("fed in again: %v: %s, first %s", err, again.Body, got.Body)
		}
	})
}
