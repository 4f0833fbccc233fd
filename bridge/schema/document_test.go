package schema_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"plaspy-bridge/auth/isotime"
	"plaspy-bridge/bridge/schema"
	"plaspy-bridge/publisher"
)

// go test ./bridge/schema -update writes the copy that is there to be read.
var update = flag.Bool("update", false, "write the document instead of comparing")

const shipped = "../../deploy/asyncapi.json"

func TestShippedDocument(t *testing.T) {
	want, err := schema.Document("plaspy", "development")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(shipped, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date; go test ./bridge/schema -update writes it", shipped)
	}
}

// walk calls f with every value of a document and its path.
func walk(path string, v any, f func(path string, v any)) {
	f(path, v)
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			walk(path+"/"+name, member, f)
		}
	case []any:
		for i, element := range v {
			walk(fmt.Sprintf("%s/%d", path, i), element, f)
		}
	}
}

func TestReferencesResolve(t *testing.T) {
	a := read(t, "plaspy")
	seen := 0
	used := map[string]bool{}
	walk("", a.root, func(path string, v any) {
		object, _ := v.(map[string]any)
		to, ok := object["$ref"].(string)
		if !ok {
			return
		}
		seen++
		used[to] = true
		if a.at(strings.TrimPrefix(to, "#")) == nil {
			t.Errorf("%s refers to %s, which is not there", path, to)
		}
		if len(object) != 1 {
			t.Errorf("%s has something beside its reference, which draft 7 does not look at", path)
		}
	})
	if seen < 100 {
		t.Errorf("%d references seen", seen)
	}
	for _, kind := range []string{"schemas", "messages", "parameters"} {
		for name := range a.object("/components/" + kind) {
			if !used["#/components/"+kind+"/"+name] {
				t.Errorf("nothing refers to %s %s", kind, name)
			}
		}
	}
}

// TestStructure checks the rules of AsyncAPI 3.1 for channels and operations.
func TestStructure(t *testing.T) {
	a := read(t, "plaspy")
	parameter := regexp.MustCompile(`\{([a-z]+)\}`)
	for name := range a.object("/channels") {
		c := a.object("/channels/" + name)
		subject, _ := c["address"].(string)
		var want []string
		for _, m := range parameter.FindAllStringSubmatch(subject, -1) {
			want = append(want, m[1])
		}
		var got []string
		for p := range a.object("/channels/" + name + "/parameters") {
			got = append(got, p)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("channel %s has parameters %v, its address %v", name, got, want)
		}
	}
	described := map[string]bool{}
	within := func(what, channel string, list any) {
		messages, _ := list.([]any)
		if len(messages) == 0 {
			t.Errorf("%s has no messages", what)
		}
		for _, m := range messages {
			if to := m.(map[string]any)["$ref"].(string); !strings.HasPrefix(to, channel+"/messages/") {
				t.Errorf("%s has message %s of another channel than %s", what, to, channel)
			}
		}
	}
	for name := range a.object("/operations") {
		o := a.object("/operations/" + name)
		if o["action"] != "send" && o["action"] != "receive" {
			t.Errorf("operation %s is to %v", name, o["action"])
		}
		channel := o["channel"].(map[string]any)["$ref"].(string)
		described[channel] = true
		within("operation "+name, channel, o["messages"])
		r, ok := o["reply"].(map[string]any)
		if !ok {
			continue
		}
		to := r["channel"].(map[string]any)["$ref"].(string)
		described[to] = true
		within("reply of "+name, to, r["messages"])
		if target := a.object(strings.TrimPrefix(to, "#")); target["address"] != nil {
			t.Errorf("reply of %s goes to a channel with an address", name)
		}
	}
	for name := range a.object("/channels") {
		if !described["#/channels/"+name] {
			t.Errorf("channel %s belongs to no operation", name)
		}
	}
}

// both are the keywords that mean the same under draft 7 and draft 2020-12.
var both = []string{
	"title", "description", "type", "const", "enum", "examples", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "uniqueItems",
	"pattern", "format", "minLength", "maxLength", "minimum", "maximum", "allOf", "anyOf", "not", "$ref",
}

func TestSchemasUseOnlyWhatBothDraftsKnow(t *testing.T) {
	a := read(t, "plaspy")
	var check func(path string, v any)
	check = func(path string, v any) {
		s, ok := v.(map[string]any)
		if !ok {
			if _, ok := v.(bool); !ok {
				t.Errorf("%s is no schema", path)
			}
			return
		}
		for keyword, value := range s {
			if !slices.Contains(both, keyword) {
				t.Errorf("%s has the keyword %s", path, keyword)
			}
			switch keyword {
			case "properties":
				for name, member := range value.(map[string]any) {
					check(path+"/properties/"+name, member)
				}
			case "allOf", "anyOf":
				for i, member := range value.([]any) {
					check(fmt.Sprintf("%s/%s/%d", path, keyword, i), member)
				}
			case "items", "not", "additionalProperties":
				check(path+"/"+keyword, value)
			}
		}
	}
	for name, s := range a.object("/components/schemas") {
		check(name, s)
	}
}

func TestSchemasCompileAndTheirExamplesAreGood(t *testing.T) {
	a := read(t, "plaspy")
	for _, draft := range []struct {
		name  string
		draft *jsonschema.Draft
	}{{"draft 7", jsonschema.Draft7}, {"draft 2020-12", jsonschema.Draft2020}} {
		t.Run(draft.name, func(t *testing.T) {
			c := jsonschema.NewCompiler()
			c.DefaultDraft(draft.draft)
			c.AssertFormat()
			if err := c.AddResource("asyncapi.json", any(a.root)); err != nil {
				t.Fatal(err)
			}
			for name, object := range a.object("/components/schemas") {
				s, err := c.Compile("asyncapi.json#/components/schemas/" + name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				examples, _ := object.(map[string]any)["examples"].([]any)
				for _, e := range examples {
					if err := s.Validate(e); err != nil {
						t.Errorf("example of %s: %v", name, err)
					}
				}
			}
		})
	}
}

func TestPrefix(t *testing.T) {
	a := read(t, "my-fleet")
	for pointer, want := range map[string]string{
		"/channels/location/address":            "my-fleet.location.{device}",
		"/channels/alert/address":               "my-fleet.alert.{device}.{alert}",
		"/channels/device/address":              "my-fleet.device.{device}",
		"/channels/inLocation/address":          "my-fleet.in.location.{device}",
		"/channels/inAlert/address":             "my-fleet.in.alert.{device}",
		"/channels/resultLocation/address":      "my-fleet.result.location.{device}",
		"/channels/resultAlert/address":         "my-fleet.result.alert.{device}",
		"/channels/deadLocation/address":        "my-fleet.dlq.location.{device}",
		"/channels/deadAlert/address":           "my-fleet.dlq.alert.{device}",
		"/channels/deadUnknown/address":         "my-fleet.dlq.unknown",
		"/channels/last/address":                "$KV.my_fleet_last.{device}",
		"/channels/last/x-jetstream-bucket":     "my_fleet_last",
		"/channels/location/x-jetstream-stream": "MY_FLEET_EVENTS",
		"/channels/askDevices/address":          "my-fleet.api.devices",
		"/channels/askAlerts/address":           "my-fleet.api.alerts.{device}",
	} {
		if got := a.at(pointer); got != want {
			t.Errorf("%s is %v, want %s", pointer, got, want)
		}
	}
}

func TestStandalone(t *testing.T) {
	for _, name := range schema.Messages() {
		text, err := schema.Standalone(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("message.json", v); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compile("message.json"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := schema.Standalone("no-such"); err == nil || !strings.Contains(err.Error(), "location") {
		t.Errorf("no such message: %v", err)
	}
}

// TestTimes checks that the pattern of the API's times allows every time that the
// bridge accepts.
func TestTimes(t *testing.T) {
	a := read(t, "plaspy")
	s, err := a.compiler.Compile("asyncapi.json#/components/schemas/apiTime")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02t03:04:05,6z", "2026-01-02 03:04:05", "2026-01-02T03:04", "20260102T030405Z",
		"2026-01-02T03:04:05+05:00", "2026-01-02T03:04:05-0500", "2026-01-02T03:04:05+05", "2026-01-02", " 2026-01-02T03:04:05Z ", "2026-01-02T0304+01",
		"", "yesterday", "2026-1-2", "2026-01-02T", "1767323045", "2026-01-02T03:04:05ZZ",
	} {
		_, _, err := isotime.Parse(text)
		if got := s.Validate(text); (got == nil) != (err == nil) {
			t.Errorf("%q: schema %v, bridge %v", text, got, err)
		}
	}
}

// TestTokens checks the results of the encoding against its pattern.
func TestTokens(t *testing.T) {
	a := read(t, "plaspy")
	s, err := a.compiler.Compile("asyncapi.json#/components/schemas/token")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"dev 1", "a.b*c>", "🚚", "=20", "A-b_9"} {
		if err := s.Validate(publisher.Encode(id)); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, token := range []string{"", "a b", "a.b", "=2f", "=2"} {
		if s.Validate(token) == nil {
			t.Errorf("%q passes", token)
		}
	}
}

// TestRefuses checks that bodies and headers that break the contract are refused.
func TestRefuses(t *testing.T) {
	a := read(t, "plaspy")
	const location = `"location":{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}`
	const alert = `"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"observedAt":"2026-01-02T03:04:05.678Z"`
	for _, tt := range []struct{ name, message, good, bad string }{
		{"no deviceId", "location", `{"deviceId":"d","observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`, `{"observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`},
		{"observedAt without milliseconds", "location", `{"deviceId":"d","observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`, `{"deviceId":"d","observedAt":"2026-01-02T03:04:05Z",` + location + `}`},
		{"latitude out of range", "location", `{"deviceId":"d","observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`, `{"deviceId":"d","observedAt":"2026-01-02T03:04:05.678Z","location":{"dateTime":"2026-01-02T03:04:01Z","latitude":91,"longitude":0}}`},
		{"backfilled false", "location", `{"deviceId":"d","backfilled":true,"observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`, `{"deviceId":"d","backfilled":false,"observedAt":"2026-01-02T03:04:05.678Z",` + location + `}`},
		{"another state", "alert", `{"deviceId":"d","alert":"A","state":"raised","critical":false,` + alert + `}`, `{"deviceId":"d","alert":"A","state":"on","critical":false,` + alert + `}`},
		{"another source", "alert", `{"deviceId":"d","alert":"A","state":"raised","critical":false,"source":"history",` + alert + `}`, `{"deviceId":"d","alert":"A","state":"raised","critical":false,"source":"poll",` + alert + `}`},
		{"another change", "device", `{"deviceId":"d","change":"added","device":{"id":"d"},"observedAt":"2026-01-02T03:04:05.678Z"}`, `{"deviceId":"d","change":"moved","device":{"id":"d"},"observedAt":"2026-01-02T03:04:05.678Z"}`},
		{"status of a failure", "result", `{"deviceId":"d","kind":"alert","id":"1","posted":true,"status":200,"attempts":1,"postedAt":"2026-01-02T03:04:05.678Z","response":null}`, `{"deviceId":"d","kind":"alert","id":"1","posted":true,"status":404,"attempts":1,"postedAt":"2026-01-02T03:04:05.678Z","response":null}`},
		{"id that is a number", "result", `{"deviceId":"d","kind":"alert","id":"1","posted":true,"status":200,"attempts":1,"postedAt":"2026-01-02T03:04:05.678Z","response":[]}`, `{"deviceId":"d","kind":"alert","id":1,"posted":true,"status":200,"attempts":1,"postedAt":"2026-01-02T03:04:05.678Z","response":[]}`},
		{"refusal without its letter", "result", `{"deviceId":"d","kind":"alert","id":"1","posted":false,"reason":"r","error":"","status":0,"attempts":0,"deadLetter":1}`, `{"deviceId":"d","kind":"alert","id":"1","posted":false,"reason":"r","error":"","status":0,"attempts":0}`},
		{"a question that writes", "range", `{"from":"a","to":"b"}`, `{"from":"a","to":"b","location":{}}`},
		{"no end", "alertRange", `{"from":"a","to":"b","alertName":null}`, `{"from":"a"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := a.body(t, tt.message, []byte(tt.good)); err != nil {
				t.Errorf("the good one: %v", err)
			}
			if a.body(t, tt.message, []byte(tt.bad)) == nil {
				t.Error("the bad one passes")
			}
		})
	}
	var good map[string][]string
	if err := json.Unmarshal([]byte(`{"ce-specversion":["1.0"],"ce-id":["0123456789abcdef0123456789abcdef"],"ce-type":["com.plaspy.location"],
		"ce-source":["https://api.plaspy.com/api/devices/d"],"ce-subject":["d"],"ce-partitionkey":["d"],"ce-time":["2026-01-02T03:04:01Z"],"content-type":["application/json"],
		"ce-datacontenttype":["application/json"],"Nats-Msg-Id":["0123456789abcdef0123456789abcdef"],"Nats-Expected-Last-Subject-Sequence":["0"]}`), &good); err != nil {
		t.Fatal(err)
	}
	if err := a.headers(t, "location", good); err != nil {
		t.Errorf("the good headers: %v", err)
	}
	for name, value := range map[string]string{
		"ce-specversion": "0.3", "ce-id": "x", "ce-type": "com.plaspy.alert", "ce-source": "no url", "ce-subject": "a b", "ce-time": "2026-01-02T03:04:01+01:00",
		"content-type": "text/plain", "Nats-Msg-Id": "", "Nats-Expected-Last-Subject-Sequence": "-1",
	} {
		before := good[name]
		good[name] = []string{value}
		if a.headers(t, "location", good) == nil {
			t.Errorf("headers with %s %q pass", name, value)
		}
		delete(good, name)
		if a.headers(t, "location", good) == nil {
			t.Errorf("headers without %s pass", name)
		}
		good[name] = before
	}
}

// Generators name a type after its title, and number those without one. A constant
// without a type is an enumeration to some, which has strings only.
func TestGeneratorsFindNames(t *testing.T) {
	a := read(t, "plaspy")
	walk("", a.object("/components/schemas"), func(path string, v any) {
		s, _ := v.(map[string]any)
		if list, ok := s["enum"].([]any); ok && len(list) > 1 && (s["title"] == nil || s["type"] != "string") {
			t.Errorf("%s: an enumeration has a title and a type", path)
		}
		if object, ok := s["properties"].(map[string]any); ok && len(object) > 0 && strings.Count(path, "/") == 1 && s["title"] == nil {
			t.Errorf("%s has no title", path)
		}
	})
}
