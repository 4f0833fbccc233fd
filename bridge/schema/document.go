package schema

import (
	_ "embed" // the schemas
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"plaspy-bridge/publisher"
)

// Version is the version of the messages, x-messages-version in the document. The
// major number grows with incompatible changes.
const Version = "1.0.0"

// componentPrefix is the prefix of a reference to a schema of the document.
const componentPrefix = "#/components/schemas/"

//go:embed schemas.json
var bodySchemas []byte

//go:embed headers.json
var headerSchemas []byte

// The objects of AsyncAPI 3.1 that the document needs, with their names:
// https://www.asyncapi.com/docs/reference/specification/v3.1.0
type (
	document struct {
		AsyncAPI           string               `json:"asyncapi"`
		ID                 string               `json:"id"`
		Info               info                 `json:"info"`
		DefaultContentType string               `json:"defaultContentType"`
		Servers            map[string]server    `json:"servers"`
		Channels           map[string]channel   `json:"channels"`
		Operations         map[string]operation `json:"operations"`
		Components         components           `json:"components"`
	}
	info struct {
		Title       string  `json:"title"`
		Version     string  `json:"version"`
		Messages    string  `json:"x-messages-version"`
		Description string  `json:"description"`
		License     license `json:"license"`
	}
	license struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	}
	server struct {
		Host        string      `json:"host"`
		Protocol    string      `json:"protocol"`
		Description string      `json:"description"`
		Security    []reference `json:"security"`
	}
	channel struct {
		Address     *string              `json:"address"` // null means the requester chooses it
		Title       string               `json:"title"`
		Description string               `json:"description,omitempty"`
		Messages    map[string]reference `json:"messages"`
		Parameters  map[string]reference `json:"parameters,omitempty"`
		Stream      string               `json:"x-jetstream-stream,omitempty"`
		Bucket      string               `json:"x-jetstream-bucket,omitempty"`
	}
	operation struct {
		Action   string      `json:"action"`
		Channel  reference   `json:"channel"`
		Summary  string      `json:"summary"`
		Messages []reference `json:"messages"`
		Reply    *reply      `json:"reply,omitempty"`
	}
	reply struct {
		Address  *address    `json:"address,omitempty"`
		Channel  reference   `json:"channel"`
		Messages []reference `json:"messages"`
	}
	address struct {
		Location    string `json:"location"`
		Description string `json:"description"`
	}
	components struct {
		Messages     map[string]message         `json:"messages"`
		Parameters   map[string]parameter       `json:"parameters"`
		Correlations map[string]address         `json:"correlationIds"`
		Security     map[string]securityScheme  `json:"securitySchemes"`
		Schemas      map[string]json.RawMessage `json:"schemas"`
	}
	message struct {
		Name        string     `json:"name"`
		Title       string     `json:"title"`
		Description string     `json:"description"`
		ContentType string     `json:"contentType"`
		Correlation *reference `json:"correlationId,omitempty"`
		Headers     *reference `json:"headers,omitempty"`
		Payload     reference  `json:"payload"`
	}
	securityScheme struct {
		Type        string `json:"type"`
		In          string `json:"in,omitempty"`
		Description string `json:"description"`
	}
	parameter struct {
		Description string   `json:"description"`
		Examples    []string `json:"examples"`
	}
	reference struct {
		Ref string `json:"$ref"`
	}
)

// Document returns the AsyncAPI document of a bridge as indented JSON.
// version is that of the release. The same arguments give the same bytes.
func Document(subjects publisher.Subjects, version string) ([]byte, error) {
	schemas, err := schemas()
	if err != nil {
		return nil, err
	}
	doc := document{
		AsyncAPI: "3.1.0",
		ID:       "urn:plaspy-bridge:" + string(subjects),
		Info: info{
			Title: "plaspy-bridge", Version: version, Messages: Version, Description: description(subjects),
			License: license{"Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		DefaultContentType: "application/json",
		Servers: map[string]server{"nats": {
			Host: "127.0.0.1:4222", Protocol: "nats", Description: "The embedded server, or the servers of NATS_URL if that is set.",
			Security: []reference{
				ref("components/securitySchemes/userPassword"), ref("components/securitySchemes/token"),
				ref("components/securitySchemes/nkey"), ref("components/securitySchemes/certificate"),
			},
		}},
		Channels:   map[string]channel{},
		Operations: map[string]operation{},
		Components: components{Messages: messages(), Correlations: correlations(), Security: security(), Schemas: schemas, Parameters: map[string]parameter{
			"device": {"The device's id. Every byte except ASCII letters, digits, - and _ is encoded as = and two upper-case hex digits.", []string{"dev=201"}},
			"alert":  {"The alert's name, encoded like a device's id.", []string{"SpeedLimit", "High=20Speed"}},
			"group":  {"The group's id or name, encoded like a device's id.", []string{"17", "Night=20shift"}},
		}},
	}
	doc.addEvents(subjects)
	doc.addInbound(subjects)
	doc.addQueries(subjects)
	doc.addControl(subjects)
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write AsyncAPI document: %w", err)
	}
	return append(b, '\n'), nil
}

func description(s publisher.Subjects) string {
	return "The messages that plaspy-bridge publishes to NATS, consumes and answers. The described application is the bridge: " +
		"it sends to subscribers and receives from gateways.\n\n" +
		"Each message that it sends is stored in the JetStream stream of its channel. Answers go to the requester's inbox. " +
		"Over MQTT a subject is a topic with / for each dot. The query service is a NATS micro service called " + string(s) + ".\n\n" +
		"Events are delivered at least once and, for each device, in order. Copies of one event have the same ce-id."
}

// schemas returns all embedded schemas by name.
func schemas() (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	for name, source := range map[string][]byte{"schemas.json": bodySchemas, "headers.json": headerSchemas} {
		if err := json.Unmarshal(source, &all); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return all, nil
}

// Messages returns the names that [Standalone] accepts, sorted.
func Messages() []string { return slices.Sorted(maps.Keys(messages())) }

// Standalone returns the JSON Schema of one message's body, for tools without
// AsyncAPI support. It fails for an unknown name.
func Standalone(name string) ([]byte, error) {
	m, ok := messages()[name]
	if !ok {
		return nil, fmt.Errorf("unknown message %q, expected one of %s", name, strings.Join(Messages(), ", "))
	}
	all, err := schemas()
	if err != nil {
		return nil, err
	}
	needed := make(map[string]json.RawMessage)
	collect(all, strings.TrimPrefix(m.Payload.Ref, componentPrefix), needed)
	b, err := json.MarshalIndent(struct {
		Schema string                     `json:"$schema"`
		Title  string                     `json:"title"`
		Ref    string                     `json:"$ref"`
		Defs   map[string]json.RawMessage `json:"$defs"`
	}{"https://json-schema.org/draft/2020-12/schema", m.Title, m.Payload.Ref, needed}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON Schema: %w", err)
	}
	return append([]byte(strings.ReplaceAll(string(b), `"`+componentPrefix, `"#/$defs/`)), '\n'), nil
}

// collect copies a schema and all schemas that it refers to, from all to needed.
func collect(all map[string]json.RawMessage, name string, needed map[string]json.RawMessage) {
	if _, done := needed[name]; done {
		return
	}
	needed[name] = all[name]
	rest := string(all[name])
	for {
		_, after, found := strings.Cut(rest, `"`+componentPrefix)
		if !found {
			return
		}
		name, rest, _ = strings.Cut(after, `"`)
		collect(all, name, needed)
	}
}
