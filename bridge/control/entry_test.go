package control

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/auth/redact"
)

func TestParse(t *testing.T) {
	yes, no, warn := true, false, slog.LevelWarn
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		key, value string
		want       Entry
	}{
		"nothing set":            {"device.d", `{}`, Entry{}},
		"the contract's example": {"device.d", `{"interval": "5s", "weight": 8, "paused": true, "until": "2026-01-02T03:04:05Z"}`, Entry{Interval: 5 * time.Second, Weight: 8, Paused: &yes, Until: until}},
		"shortest and lightest":  {"group.g", `{"interval":"100ms","weight":0.1}`, Entry{Interval: 100 * time.Millisecond, Weight: 0.1}},
		"not paused":             {"device.d", `{"paused":false}`, Entry{Paused: &no}},
		"null is absent":         {"device.d", `{"interval":null,"paused":null}`, Entry{}},
		"set by":                 {"device.d", "{\"set_by\":\"eva\\u001b[31m\"}", Entry{SetBy: "eva [31m"}},
		"unknown fields":         {"device.d", `{"intervall":"5s","Weight":3,"rate_limit":5}`, Entry{Ignored: []string{"Weight", "intervall", "rate_limit"}}},
		"fleet": {"fleet", `{"rate_limit":60,"log_level":"WARN","devices":["a*"],"devices_exclude":"b, c"}`,
			Entry{RateLimit: 60, LogLevel: &warn, Devices: []string{"a*"}, Exclude: []string{"b", "c"}}},
		"all devices":  {"fleet", `{"devices":[]}`, Entry{Devices: []string{}}},
		"encoded name": {"device.dev=201", `{"weight":2}`, Entry{Weight: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tt.key, []byte(tt.value))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			again, err := Parse(tt.key, got.Encode())
			again.Ignored = tt.want.Ignored
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("written and read again: got %+v, %v, want %+v", again, err, got)
			}
		})
	}
}

func TestParseFaults(t *testing.T) {
	for _, tt := range []struct{ key, value, want string }{
		{"device.d", ``, "not a JSON object"},
		{"device.d", `null`, "not a JSON object"},
		{"device.d", `[]`, "not a JSON object"},
		{"device.d", `"paused"`, "not a JSON object"},
		{"device.d", `{"paused":true} x`, "not a JSON object"},
		{"device.d", `{"interval":5}`, "interval: expected a duration"},
		{"device.d", `{"interval":"5"}`, "interval: expected a duration"},
		{"device.d", `{"interval":"0s"}`, "interval: expected a duration"},
		{"device.d", `{"interval":"-5s"}`, "interval: expected a duration"},
		{"device.d", `{"weight":"8"}`, "weight: expected a number, 0.1 to 64"},
		{"device.d", `{"weight":65}`, "weight: expected a number, 0.1 to 64"},
		{"device.d", `{"weight":0}`, "weight: expected a number, 0.1 to 64"},
		{"device.d", `{"paused":"yes"}`, "paused: expected true or false"},
		{"device.d", `{"until":"tomorrow"}`, "until: expected a time"},
		{"device.d", `{"until":"0001-01-01T00:00:00Z"}`, "until: expected a time"},
		{"device.d", `{"weight":0,"interval":1,"until":2}`, "interval: expected a duration with its unit in quotes, such as \"5s\", at least 100ms; until: expected"},
		{"fleet", `{"rate_limit":0}`, "rate_limit: expected a whole number"},
		{"fleet", `{"rate_limit":1.5}`, "rate_limit: expected a whole number"},
		{"fleet", `{"log_level":"loud"}`, "log_level: expected"},
		{"fleet", `{"devices":"["}`, "devices: expected a list"},
		{"fleet", `{"devices_exclude":{}}`, "devices_exclude: expected a list"},
		{"fleet", `{"devices":"` + strings.Repeat("a,", 2000) + `"}`, "1000 at most"},
		{"fleet", `{"x":"` + strings.Repeat("x", maxValue) + `"}`, "larger than 65536 bytes"},
		{"fleet.x", `{}`, "the key must be"},
		{"device", `{}`, "does not name a device"},
		{"device.", `{}`, "does not name a device"},
		{"device.a.b", `{}`, "does not name a device"},
		{"device.a=2e", `{}`, "does not name a device"},
		{"group.dev 1", `{}`, "does not name a group"},
		{"other", `{}`, "the key must be"},
	} {
		if got, err := Parse(tt.key, []byte(tt.value)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %.40s: got %+v, %v, want an error with %q", tt.key, tt.value, got, err, tt.want)
		}
	}
}

func TestTitle(t *testing.T) {
	for key, want := range map[string]string{
		DeviceKey("dev 1"): "device dev 1", GroupKey("Süd"): "group Süd", FleetKey: "fleet", "device.=1B": "device.=1B", "x.y.z": "x.y.z",
		GroupKey("Reserve  North "): "group Reserve  North ", DeviceKey("a\u202eb"): DeviceKey("a\u202eb"), DeviceKey("\xff"): DeviceKey("\xff"),
	} {
		if got := Title(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// FuzzParse checks that no value breaks the rules, and that an entry which was read
// is the same after it is written.
func FuzzParse(f *testing.F) {
	f.Add("device.a", []byte(`{"interval":"5s","weight":8,"paused":true,"until":"2026-01-02T03:04:05Z"}`))
	f.Add("fleet", []byte(`{"rate_limit":60,"log_level":"debug","devices":["a*"],"devices_exclude":"b"}`))
	f.Add("group.g", []byte(`{"interval":"9999999h","weight":1e-1}`))
	f.Add("device.a", []byte(`{"until":"9999-12-31T23:59:59+14:00","set_by":"\ufffd"}`))
	f.Add("fleet", []byte(`{"devices":"\u001b[2J","set_by":"\n","x":[[[{"a":null}]]]}`))
	f.Add("device.a", []byte(`{"weight":1e999,"weight":-0,"interval":"NaNs","interval":"9e9h"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		e, err := Parse(key, value)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("error is not one line: %q", err)
			}
			return
		}
		if e.Interval != 0 && e.Interval < minInterval || e.Weight != 0 && !(e.Weight >= minWeight && e.Weight <= maxWeight) ||
			e.RateLimit < 0 || e.RateLimit > maxRate || redact.Line(e.SetBy, maxText) != e.SetBy {
			t.Errorf("out of bounds: %+v", e)
		}
		again, err := Parse(key, e.Encode())
		e.Ignored, again.Ignored = nil, nil
		if err != nil || again.Interval != e.Interval || again.Weight != e.Weight || !again.Until.Equal(e.Until) || again.RateLimit != e.RateLimit {
			t.Errorf("written and read again: got %+v, %v, want %+v", again, err, e)
		}
		r := NewRules(time.Now(), []Item{{Key: key, Value: value}})
		if terms := r.Device("a", []string{"g"}); terms.Weight < 0 || terms.Interval < 0 {
			t.Errorf("terms %+v", terms)
		}
		for _, n := range r.All() {
			if text := n.Describe(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
				t.Errorf("description %q", text)
			}
		}
	})
}
