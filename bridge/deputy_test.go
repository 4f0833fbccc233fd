package bridge_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/query"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// oneDevice is an API that has a device with a location.
type oneDevice struct{}

// DeviceList answers.
func (oneDevice) DeviceList(context.Context) (plaspy.Answer, error) {
	return plaspy.Answer{Status: 200, Body: []byte(`{"success":true,"devices":[]}`)}, nil
}

// Device fails.
func (oneDevice) Device(context.Context, string) (plaspy.Answer, error) {
	return plaspy.Answer{}, errors.New("none")
}

// LastLocation answers.
func (oneDevice) LastLocation(context.Context, string, []byte) (plaspy.LastLocation, error) {
	return plaspy.LastLocation{Buf: []byte(`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1}`)}, nil
}

// Locations fails.
func (oneDevice) Locations(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{}, errors.New("none")
}

// Alerts fails.
func (oneDevice) Alerts(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error) {
	return plaspy.Answer{}, errors.New("none")
}

// TestReplyIsNoDeputy: with deploy/nats.conf, neither a subscriber nor a gateway
// gets anything published, purged or deleted by choosing the subject of an answer,
// whether or not the query service has a user of its own.
func TestReplyIsNoDeputy(t *testing.T) {
	t.Parallel()
	subjects := publisher.Subjects("plaspy")
	for _, user := range []string{"bridge", "query"} {
		t.Run("service as "+user, func(t *testing.T) {
			s, _ := natsConf(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			operator := connect(t, s, "operator", "pass-of-OPERATOR")
			must[[]publisher.StreamReport](t, "create streams")(publisher.EnsureStreams(ctx, operator.js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})))
			if _, err := operator.js.Publish(ctx, subjects.InLocation("truck7"), []byte("{}")); err != nil {
				t.Fatal(err)
			}
			service := connect(t, s, "bridge", "pass-of-BRIDGE")
			if user == "query" {
				service = connectQuery(t, s)
			}
			q, err := query.New(query.Options{Conn: service.Conn, Subjects: subjects, Devices: oneDevice{}, History: oneDevice{}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			natstest.Run(t, func(ctx context.Context) { _ = q.Run(ctx) })
			subscriber, gateway := connect(t, s, "subscriber", "pass-of-SUBSCRIBER"), connect(t, s, "gateway", "pass-of-GATEWAY")
			waitForService(t, subscriber.Conn)
			for _, reply := range []string{
				"$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$JS.API.STREAM.DELETE.PLASPY_INBOUND", "$JS.API.STREAM.MSG.DELETE.PLASPY_INBOUND", "plaspy.location.truck7",
				"plaspy.alert.truck7.SOS", "plaspy.result.location.truck7", "plaspy.dlq.unknown", "plaspy.in.location.truck8", "$KV.plaspy_replicas.group.plan", "$KV.plaspy_last.truck7",
			} {
				for _, subject := range []string{"plaspy.api.device.=", "plaspy.api.last.truck7", "plaspy.api.devices", "$SRV.PING", "$SRV.INFO.plaspy", "$SRV.STATS"} {
					if err := subscriber.PublishMsg(&nats.Msg{Subject: subject, Reply: reply}); err != nil {
						t.Fatal(err)
					}
				}
				if err := gateway.PublishMsg(&nats.Msg{Subject: "plaspy.in.location.truck7", Reply: reply, Data: []byte("{}")}); err != nil {
					t.Fatal(err)
				}
			}
			waitForService(t, subscriber.Conn) // earlier requests have been answered
			if _, err := gateway.js.Publish(ctx, "plaspy.in.location.truck7", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			for stream, want := range map[string]uint64{
				"PLASPY_INBOUND": 12, "PLASPY_EVENTS": 0, "PLASPY_RESULTS": 0, "PLASPY_DLQ": 0, "KV_plaspy_replicas": 0, "KV_plaspy_last": 0,
			} {
				st, err := operator.js.Stream(ctx, stream)
				if err != nil {
					t.Fatal(err)
				}
				if state := st.CachedInfo().State; state.Msgs != want || state.LastSeq != want {
					t.Errorf("%s has %d messages up to %d, want %d", stream, state.Msgs, state.LastSeq, want)
				}
			}
		})
	}
}

// waitForService asks until the query service answers.
func waitForService(t *testing.T, nc *nats.Conn) {
	t.Helper()
	natstest.Eventually(t, "the query service", func() bool {
		_, err := nc.Request("plaspy.api.devices", nil, time.Second)
		return err == nil
	})
}

// TestGatewayHearsNoPositions checks that a gateway of deploy/nats.conf receives no position
// that is delivered to others, with any subscription.
func TestGatewayHearsNoPositions(t *testing.T) {
	s, _ := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	subjects := publisher.Subjects("plaspy")
	bridge := connect(t, s, "bridge", "pass-of-BRIDGE")
	must[[]publisher.StreamReport](t, "create streams")(publisher.EnsureStreams(ctx, bridge.js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})))
	gateway := connect(t, s, "gateway", "pass-of-GATEWAY")
	heard := make(chan string, 64)
	for _, subject := range []string{">", "_INBOX.>", "_INBOX_gateway.>", "_INBOX_bridge.>", "_INBOX_subscriber.>", "plaspy.location.>", "plaspy.>", "$KV.>", "$JS.>", "_R_.>"} {
		if _, err := gateway.Subscribe(subject, func(m *nats.Msg) { heard <- m.Subject }); err != nil {
			t.Fatal(err)
		}
	}
	if err := gateway.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := bridge.js.Publish(ctx, subjects.Location("truck7"), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s, "subscriber", "pass-of-SUBSCRIBER")
	consumer, err := c.js.OrderedConsumer(ctx, subjects.Events(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(); err != nil {
		t.Fatal(err)
	}
	if err := gateway.Flush(); err != nil { // the server delivers pending messages before it answers
		t.Fatal(err)
	}
	select {
	case subject := <-heard:
		t.Errorf("the gateway receives %s", subject)
	default:
	}
}
