package bridge_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// natsConf starts a server with deploy/nats.conf, but for its ports and folder,
// and returns it and where it listens for MQTT.
func natsConf(t *testing.T) (*server.Server, string) {
	t.Helper()
	for _, user := range []string{"BRIDGE", "SUBSCRIBER", "GATEWAY", "OPERATOR"} {
		t.Setenv(user+"_PASSWORD", "pass-of-"+user)
	}
	o, err := server.ProcessConfigFile("../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.HTTPPort, o.MQTT.Host, o.MQTT.Port = "127.0.0.1", server.RANDOM_PORT, 0, "127.0.0.1", server.RANDOM_PORT
	o.StoreDir, o.NoSigs, o.NoLog = t.TempDir(), true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s, fmt.Sprintf("127.0.0.1:%d", o.MQTT.Port) // the server has put it there
}

// client is a user's connection, and the refusals that the server sends to it.
type client struct {
	*nats.Conn
	js      jetstream.JetStream
	refused chan error
}

func connect(t *testing.T, s *server.Server, user, password string) client {
	t.Helper()
	refused := make(chan error, 16)
	conn, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return client{conn, js, refused}
}

// mayNot publishes and wants the server to refuse it.
func (c client) mayNot(t *testing.T, subject string) {
	t.Helper()
	if err := c.Publish(subject, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-c.refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("publish to %s: %v, want a permissions violation", subject, err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("publish to %s is allowed", subject)
	}
}

// must fails the test on an error of a step that the permissions are to allow.
func must[T any](t *testing.T, step string) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		return v
	}
}

// TestNATSConf lets each user of deploy/nats.conf do what it is for, and try
// what is not for it.
func TestNATSConf(t *testing.T) {
	s, mqtt := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	subjects := publisher.Subjects("plaspy")
	bridge := connect(t, s, "bridge", "pass-of-BRIDGE")
	must[[]publisher.StreamReport](t, "create streams")(publisher.EnsureStreams(ctx, bridge.js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})))
	bucket := must[jetstream.KeyValue](t, "open bucket")(bridge.js.KeyValue(ctx, "plaspy_replicas"))
	must[uint64](t, "write to the bucket")(bucket.Create(ctx, "group.plan", []byte("{}")))
	must[*jetstream.PubAck](t, "publish a location")(bridge.js.Publish(ctx, subjects.Location("truck7"), []byte("{}")))
	bridge.mayNot(t, "$JS.API.STREAM.DELETE.PLASPY_EVENTS")

	t.Run("subscriber", func(t *testing.T) {
		c := connect(t, s, "subscriber", "pass-of-SUBSCRIBER")
		for _, durable := range []string{"", "reports"} {
			consumer := must[jetstream.Consumer](t, "create consumer")(c.js.CreateOrUpdateConsumer(ctx, "PLASPY_EVENTS", jetstream.ConsumerConfig{
				Durable: durable, FilterSubject: "plaspy.location.*", AckPolicy: jetstream.AckExplicitPolicy,
			}))
			msg := must[jetstream.Msg](t, "consume")(consumer.Next(jetstream.FetchMaxWait(5 * time.Second)))
			if err := msg.DoubleAck(ctx); err != nil {
				t.Errorf("acknowledge: %v", err)
			}
		}
		ordered := must[jetstream.Consumer](t, "create ordered consumer")(c.js.OrderedConsumer(ctx, "PLASPY_EVENTS", jetstream.OrderedConsumerConfig{}))
		must[jetstream.Msg](t, "consume in order")(ordered.Next(jetstream.FetchMaxWait(5 * time.Second)))
		last := must[jetstream.KeyValue](t, "open plaspy_last")(c.js.KeyValue(ctx, "plaspy_last"))
		watch := must[jetstream.KeyWatcher](t, "watch plaspy_last")(last.WatchAll(ctx))
		for entry := range watch.Updates() {
			if entry != nil { // the sourcing stream may be a moment behind
				break
			}
		}
		_ = watch.Stop()
		must[jetstream.KeyValueEntry](t, "get from plaspy_last")(last.Get(ctx, "truck7"))
		live := must[*nats.Subscription](t, "subscribe")(c.SubscribeSync("plaspy.location.*"))
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		must[*jetstream.PubAck](t, "publish")(bridge.js.Publish(ctx, subjects.Location("truck8"), []byte("{}")))
		must[*nats.Msg](t, "hear it")(live.NextMsg(5 * time.Second))
		for _, subject := range []string{
			subjects.Location("truck7"), "plaspy.in.location.truck7", "plaspy.dlq.unknown", "$KV.plaspy_last.truck7", "$KV.plaspy_replicas.x",
			"$JS.API.STREAM.PURGE.PLASPY_EVENTS", "$JS.API.STREAM.DELETE.PLASPY_EVENTS", "$JS.API.STREAM.CREATE.MINE", "$JS.API.CONSUMER.MSG.NEXT.PLASPY_INBOUND.any",
		} {
			c.mayNot(t, subject)
		}
	})
	t.Run("gateway", func(t *testing.T) {
		c := connect(t, s, "gateway", "pass-of-GATEWAY")
		must[*jetstream.PubAck](t, "hand in a location")(c.js.Publish(ctx, "plaspy.in.location.truck7", []byte("{}")))
		must[*jetstream.PubAck](t, "hand in an alert")(c.js.Publish(ctx, "plaspy.in.alert.truck7", []byte("{}")))
		for _, subject := range []string{subjects.Location("truck7"), "plaspy.in.elsewhere", "$JS.API.STREAM.INFO.PLASPY_EVENTS", "$JS.API.STREAM.PURGE.PLASPY_INBOUND"} {
			c.mayNot(t, subject)
		}
	})
	t.Run("gateway over MQTT", func(t *testing.T) {
		inbound := must[jetstream.Stream](t, "look up")(bridge.js.Stream(ctx, "PLASPY_INBOUND"))
		publishMQTT(ctx, t, mqtt, "gateway", "pass-of-GATEWAY", "plaspy/in/location/truck9", `{"dateTime":"x"}`)
		msg := must[*jetstream.RawStreamMsg](t, "find it in the stream")(inbound.GetLastMsgForSubject(ctx, "plaspy.in.location.truck9"))
		if string(msg.Data) != `{"dateTime":"x"}` {
			t.Errorf("stored %s", msg.Data)
		}
	})
	t.Run("operator", func(t *testing.T) {
		c := connect(t, s, "operator", "pass-of-OPERATOR")
		stream := must[jetstream.Stream](t, "look up")(c.js.Stream(ctx, "PLASPY_INBOUND"))
		if err := stream.Purge(ctx); err != nil {
			t.Errorf("purge: %v", err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		if conn, err := nats.Connect(s.ClientURL()); err == nil {
			conn.Close()
			t.Error("connected without a password")
		}
	})
}

// publishMQTT connects, publishes one message at least once, waits for the
// acknowledgement, and leaves. MQTT 3.1.1, sections 3.1 to 3.4.
func publishMQTT(ctx context.Context, t *testing.T, addr, user, password, topic, payload string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }
	send := func(kind byte, parts ...[]byte) {
		body := bytes.Join(parts, nil)
		if len(body) > 127 {
			t.Fatal("packet too long for one byte of length")
		}
		if _, err := conn.Write(append([]byte{kind, byte(len(body))}, body...)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...byte) {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("answered % x, %v, want % x", got, err, want)
		}
	}
	send(0x10, text("MQTT"), []byte{4, 0xc2, 0, 60}, text("tracker-1"), text(user), text(password))
	expect(0x20, 2, 0, 0)
	send(0x32, text(topic), []byte{0, 1}, []byte(payload))
	expect(0x40, 2, 0, 1)
	send(0xe0)
}
