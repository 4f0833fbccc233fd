package schema_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"plaspy-bridge/bridge/schema"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// asyncapi is the document as a reader sees it, with its schemas compiled.
type asyncapi struct {
	root     map[string]any
	compiler *jsonschema.Compiler
	subjects []address
}

// address is a channel's with a pattern of its subjects.
type address struct {
	channel string
	pattern *regexp.Regexp
}

func read(tb testing.TB, subjects publisher.Subjects) *asyncapi {
	tb.Helper()
	text, err := schema.Document(subjects, "v1.2.3")
	if err != nil {
		tb.Fatal(err)
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	a := &asyncapi{root: root.(map[string]any), compiler: jsonschema.NewCompiler()}
	a.compiler.DefaultDraft(jsonschema.Draft2020)
	a.compiler.AssertFormat()
	if err := a.compiler.AddResource("asyncapi.json", root); err != nil {
		tb.Fatal(err)
	}
	for name := range a.object("/channels") {
		if subject, ok := a.at("/channels/" + name + "/address").(string); ok {
			pattern := regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(subject), `[^.]+`)
			a.subjects = append(a.subjects, address{name, regexp.MustCompile("^" + pattern + "$")})
		}
	}
	return a
}

// at follows a JSON pointer, through references. It returns nil if there is no value.
func (a *asyncapi) at(pointer string) any {
	var v any = a.root
	for key := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		object, _ := v.(map[string]any)
		v = object[key]
		if next, ok := v.(map[string]any); ok {
			if to, ok := next["$ref"].(string); ok && len(next) == 1 {
				v = a.at(strings.TrimPrefix(to, "#"))
			}
		}
	}
	return v
}

func (a *asyncapi) object(pointer string) map[string]any {
	v, _ := a.at(pointer).(map[string]any)
	return v
}

// channel finds the one channel that a subject belongs to.
func (a *asyncapi) channel(subject string) (string, error) {
	found := ""
	for _, s := range a.subjects {
		if s.pattern.MatchString(subject) {
			if found != "" {
				return "", fmt.Errorf("%s belongs to %s and %s", subject, found, s.channel)
			}
			found = s.channel
		}
	}
	if found == "" {
		return "", fmt.Errorf("%s belongs to no channel", subject)
	}
	return found, nil
}

// message names the one message of a channel.
func (a *asyncapi) message(channel string) string {
	for name := range a.object("/channels/" + channel + "/messages") {
		return name
	}
	return ""
}

func (a *asyncapi) schema(tb testing.TB, of, message string) *jsonschema.Schema {
	tb.Helper()
	to, _ := a.root["components"].(map[string]any)["messages"].(map[string]any)[message].(map[string]any)[of].(map[string]any)
	if to == nil {
		tb.Fatalf("message %q has no %s", message, of)
	}
	s, err := a.compiler.Compile("asyncapi.json" + to["$ref"].(string))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// body checks a body against its message's schema. A body that is not JSON is an error
// in a message with the content type JSON.
func (a *asyncapi) body(tb testing.TB, message string, data []byte) error {
	tb.Helper()
	if a.at("/components/messages/"+message+"/contentType") != "application/json" {
		return nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%q is not JSON: %w", data, err)
	}
	return a.schema(tb, "payload", message).Validate(v)
}

func (a *asyncapi) headers(tb testing.TB, message string, h nats.Header) error {
	tb.Helper()
	object := make(map[string]any, len(h))
	for name, values := range h {
		object[name] = values[0]
	}
	return a.schema(tb, "headers", message).Validate(object)
}
