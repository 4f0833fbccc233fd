package publisher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/nats-io/nats.go"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// received is a NATS message as the CloudEvents SDK's own NATS binding reads one:
// in binary mode, with ce- before each attribute's name, in the case it has. That
// binding is a module of its own, with a NATS client of its own; it does
// the same.
type received struct{ *nats.Msg }

var attributes = spec.WithPrefix("ce-")

func (m received) ReadEncoding() binding.Encoding {
	if m.Header.Get(attributes.PrefixedSpecVersionName()) == "" {
		return binding.EncodingUnknown
	}
	return binding.EncodingBinary
}

func (m received) ReadStructured(context.Context, binding.StructuredWriter) error {
	return binding.ErrNotStructured
}

func (m received) ReadBinary(_ context.Context, w binding.BinaryWriter) error {
	version := attributes.Version(m.Header.Get(attributes.PrefixedSpecVersionName()))
	var errs []error
	for name, values := range m.Header {
		switch attribute := version.Attribute(name); {
		case attribute != nil:
			errs = append(errs, w.SetAttribute(attribute, values[0]))
		case strings.HasPrefix(name, "ce-"):
			errs = append(errs, w.SetExtension(strings.TrimPrefix(name, "ce-"), values[0]))
		case name == "content-type":
			errs = append(errs, w.SetAttribute(version.AttributeFromKind(spec.DataContentType), values[0]))
		}
	}
	return errors.Join(append(errs, w.SetData(bytes.NewReader(m.Data)))...)
}

func (m received) GetAttribute(kind spec.Kind) (spec.Attribute, any) {
	version := attributes.Version(m.Header.Get(attributes.PrefixedSpecVersionName()))
	attribute := version.AttributeFromKind(kind)
	return attribute, m.Header.Get(attribute.PrefixedName())
}

func (m received) GetExtension(name string) any { return m.Header.Get("ce-" + name) }

func (received) Finish(error) error { return nil }

// TestCloudEvents checks that the CloudEvents SDK reads every kind of event, as a
// subscriber gets it.
func TestCloudEvents(t *testing.T) {
	const subjects = publisher.Subjects("plaspy")
	s := natstest.Start(t)
	p := s.Publisher(t, subjects)
	nc := s.Client(t)
	sub, err := nc.SubscribeSync("plaspy.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // the publisher has a connection of its own
		t.Fatal(err)
	}
	const id, source = "dev 1/ñ", "https://api.plaspy.com/api/devices/dev%201%2F%C3%B1"
	token, err := publisher.Token(id)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 1, 5e6, time.UTC)
	raw := json.RawMessage(`{"dateTime":"2026-01-02T03:04:01.005Z","latitude":4.70,"longitude":-74.1}`)
	tests := []struct {
		typ        string
		event      *publisher.Event
		field      string // of the body
		extensions map[string]any
	}{
		{"com.plaspy.location", subjects.LocationEvent(&publisher.Location{
			DeviceID: id, Token: token, Source: source, FixTime: at, ObservedAt: at.Add(time.Second), Raw: raw, Edges: "+SpeedLimit", Since: at,
		}, 0), "location", map[string]any{"partitionkey": token, "recordedtime": "2026-01-02T03:04:02.005Z"}},
		{"com.plaspy.alert", subjects.AlertEvent(&publisher.Alert{
			DeviceID: id, Token: token, Source: source, Alert: "SpeedLimit", AlertToken: "SpeedLimit", State: publisher.Raised,
			DateTime: json.RawMessage(`"2026-01-02T03:04:01.005Z"`), Latitude: json.RawMessage(`4.70`), Longitude: json.RawMessage(`-74.1`), FixTime: at, ObservedAt: at,
		}, 0), "state", map[string]any{"partitionkey": token, "recordedtime": "2026-01-02T03:04:01.005Z", "severitynumber": "13"}},
		{"com.plaspy.device", subjects.DeviceEvent(&publisher.Device{
			DeviceID: id, Token: token, Source: source, Change: publisher.Added, Raw: json.RawMessage(`{"id":"dev 1/ñ"}`), ObservedAt: at,
		}, 0), "device", map[string]any{"partitionkey": token}},
	}
	for _, tt := range tests {
		t.Run(tt.typ, func(t *testing.T) {
			stored := make(chan error, 1)
			if err := p.Publish(t.Context(), []*publisher.Event{tt.event}, func(err error) { stored <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-stored; err != nil {
				t.Fatal(err)
			}
			m, err := sub.NextMsg(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			e, err := binding.ToEvent(t.Context(), received{m})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil {
				t.Errorf("not valid: %v", err)
			}
			if e.Type() != tt.typ || e.SpecVersion() != "1.0" || e.Source() != "https://api.plaspy.com/api/devices/dev=201=2F=C3=B1" || e.Subject() != token || !e.Time().Equal(at) ||
				e.DataContentType() != "application/json" || e.ID() == "" || e.ID() != m.Header.Get(nats.MsgIdHdr) ||
				!maps.Equal(e.Extensions(), tt.extensions) {
				t.Errorf("read as\n%s", e)
			}
			var body map[string]json.RawMessage
			if err := e.DataAs(&body); err != nil || body[tt.field] == nil {
				t.Errorf("data %s, %v", e.Data(), err)
			}
		})
	}
}
