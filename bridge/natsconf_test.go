package bridge_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// natsConf starts a server with deploy/nats.conf, but for its ports and folder,
// and returns it and its address for MQTT.
func natsConf(t *testing.T) (*server.Server, string) {
	t.Helper()
	return natsConfOf(t, deployed(t))
}

// natsConfOf is natsConf with another file.
func natsConfOf(t *testing.T, o *server.Options) (*server.Server, string) {
	t.Helper()
	o.Host, o.Port, o.HTTPPort, o.MQTT.Host, o.MQTT.Port = "127.0.0.1", server.RANDOM_PORT, 0, "127.0.0.1", server.RANDOM_PORT
	o.StoreDir, o.NoSigs, o.NoLog, o.AuthTimeout = t.TempDir(), true, true, 60
	o.MQTT.JSAPITimeout = time.Minute
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s, fmt.Sprintf("127.0.0.1:%d", o.MQTT.Port) // the server has put it there
}

// deployed reads deploy/nats.conf, with the passwords that TestMain has set.
func deployed(t *testing.T) *server.Options {
	t.Helper()
	o, err := server.ProcessConfigFile("../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	return o
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
	conn, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password), nats.Timeout(time.Minute),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js := natstest.JetStream(t, conn)
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
	case <-time.After(time.Minute):
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

// TestNATSConf checks that each user of deploy/nats.conf may do its own work and is
// refused all else.
func TestNATSConf(t *testing.T) {
	t.Parallel()
	s, mqtt := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
			msg := must[jetstream.Msg](t, "consume")(consumer.Next(jetstream.FetchMaxWait(time.Minute)))
			if err := msg.DoubleAck(ctx); err != nil {
				t.Errorf("acknowledge: %v", err)
			}
		}
		ordered := must[jetstream.Consumer](t, "create ordered consumer")(c.js.OrderedConsumer(ctx, "PLASPY_EVENTS", jetstream.OrderedConsumerConfig{}))
		must[jetstream.Msg](t, "consume in order")(ordered.Next(jetstream.FetchMaxWait(time.Minute)))
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
		must[*nats.Msg](t, "hear it")(live.NextMsg(time.Minute))
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
		for subject, publish := range map[string]string{
			"plaspy.result.>": "plaspy.result.location.truck7", "plaspy.dlq.>": "plaspy.dlq.unknown", "_INBOX_gateway.>": "_INBOX_gateway.abc",
		} {
			sub := must[*nats.Subscription](t, "subscribe")(c.SubscribeSync(subject))
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := bridge.Publish(publish, nil); err != nil {
				t.Fatal(err)
			}
			must[*nats.Msg](t, "hear "+publish)(sub.NextMsg(time.Minute))
		}
		for _, subject := range []string{subjects.Location("truck7"), "plaspy.in.elsewhere", "$JS.API.STREAM.INFO.PLASPY_EVENTS", "$JS.API.STREAM.PURGE.PLASPY_INBOUND", "plaspy.api.devices"} {
			c.mayNot(t, subject)
		}
	})
	t.Run("gateway over MQTT", func(t *testing.T) {
		inbound := must[jetstream.Stream](t, "look up")(connect(t, s, "operator", "pass-of-OPERATOR").js.Stream(ctx, "PLASPY_INBOUND"))
		publishMQTT(ctx, t, mqtt, "gateway", "pass-of-GATEWAY", "plaspy/in/location/truck9", `{"dateTime":"x"}`)
		// The stream takes the message after the acknowledgement of MQTT.
		var msg *jetstream.RawStreamMsg
		natstest.Eventually(t, "it is in the stream", func() (there bool) {
			found, err := inbound.GetLastMsgForSubject(ctx, "plaspy.in.location.truck9")
			msg = found
			return err == nil
		})
		if string(msg.Data) != `{"dateTime":"x"}` {
			t.Errorf("stored %s", msg.Data)
		}
	})
	t.Run("topics over MQTT", func(t *testing.T) {
		for user, topics := range map[string][]string{
			"gateway":    {"plaspy/result/#", "plaspy/result/+/+", "plaspy/dlq/#"},
			"subscriber": {"plaspy/location/#", "plaspy/location/+", "plaspy/alert/#", "plaspy/alert/+/+", "plaspy/device/#", "plaspy/result/#", "plaspy/dlq/#"},
		} {
			for _, topic := range topics {
				if code := subscribeMQTT(ctx, t, mqtt, user, "pass-of-"+strings.ToUpper(user), topic); code != 1 {
					t.Errorf("%s may not subscribe to %s: %#x", user, topic, code)
				}
			}
		}
		for _, topic := range []string{"#", "plaspy/#", "plaspy/location/#", "plaspy/location/+", "plaspy/in/location/+"} {
			if code := subscribeMQTT(ctx, t, mqtt, "gateway", "pass-of-GATEWAY", topic); code != 0x80 {
				t.Errorf("the gateway may subscribe to %s: %#x", topic, code)
			}
		}
	})
	t.Run("bridge", func(t *testing.T) {
		for _, subject := range []string{
			"$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$JS.API.STREAM.UPDATE.PLASPY_EVENTS", "$JS.API.STREAM.DELETE.PLASPY_DLQ", "$JS.API.STREAM.RESTORE.PLASPY_EVENTS",
			"$JS.API.STREAM.SNAPSHOT.PLASPY_EVENTS", "$JS.API.STREAM.LEADER.STEPDOWN.PLASPY_EVENTS", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE",
			"$JS.API.STREAM.MSG.DELETE.PLASPY_EVENTS", "$JS.API.STREAM.CREATE.OTHER", "$JS.API.CONSUMER.DELETE.OTHER.x", "plaspy.in.location.truck7", "$KV.other.x", "$SYS.REQ.SERVER.PING",
		} {
			bridge.mayNot(t, subject)
		}
	})
	t.Run("query", func(t *testing.T) {
		c := connectQuery(t, s)
		for _, subject := range []string{"$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$JS.API.INFO", "plaspy.location.truck7", "plaspy.in.location.truck7", "$KV.plaspy_replicas.x", "_INBOX_bridge.x"} {
			c.mayNot(t, subject)
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
		if conn, err := nats.Connect(s.ClientURL(), nats.Timeout(time.Minute)); err == nil {
			conn.Close()
			t.Error("connected without a password")
		}
	})
}

// TestNATSConfOfSilence checks that the user bridge can create the bucket of the alert
// silent, read it, and edit it for a device that is removed and comes back.
func TestNATSConfOfSilence(t *testing.T) {
	t.Parallel()
	s, _ := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	subjects := publisher.Subjects("plaspy")
	quiet := slog.New(slog.DiscardHandler)
	conn, err := publisher.Connect(publisher.ConnOptions{URL: s.ClientURL(), User: "bridge", Password: "pass-of-BRIDGE", InboxPrefix: "_INBOX_bridge"}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Shut(0) }()
	pub := must[*publisher.Publisher](t, "make a publisher")(publisher.New(conn, subjects, quiet, nil))
	js := natstest.Own(t, pub)
	must[[]publisher.StreamReport](t, "create streams")(publisher.EnsureStreams(ctx, js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour})))
	if err := pub.Positions().RememberSilent(ctx); err != nil {
		t.Fatal(err)
	}
	operator := connect(t, s, "operator", "pass-of-OPERATOR")
	bucket := must[jetstream.KeyValue](t, "open the bucket")(operator.js.KeyValue(ctx, subjects.SilentBucket()))
	watch := must[jetstream.KeyWatcher](t, "watch it")(bucket.Watch(ctx, "truck7"))
	next := func(want jetstream.KeyValueOp) {
		t.Helper()
		for {
			select {
			case e := <-watch.Updates():
				if e == nil {
					continue // the end of the first messages
				}
				if e.Operation() != want {
					t.Fatalf("got a %v, want a %v", e.Operation(), want)
				}
				return
			case <-ctx.Done():
				t.Fatalf("no %v", want)
			}
		}
	}
	must[*jetstream.PubAck](t, "publish the alert")(js.Publish(ctx, subjects.Alert("truck7", publisher.SilentAlert), []byte("{}")))
	next(jetstream.KeyValuePut)
	for range 2 { // the second time there is nothing to do
		if err := pub.Positions().Remove(ctx, "truck7"); err != nil {
			t.Fatal(err)
		}
	}
	next(jetstream.KeyValueDelete)
	for range 2 {
		if err := pub.Positions().Restore(ctx, "truck7"); err != nil {
			t.Fatal(err)
		}
	}
	next(jetstream.KeyValuePut)
	events := must[jetstream.Stream](t, "look up the events")(operator.js.Stream(ctx, subjects.Events()))
	if err := events.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	must[publisher.Mark](t, "read the state")(pub.Reader().State(ctx, false, func(publisher.Stored) {}))
	if err := conn.LastError(); err != nil {
		t.Error(err)
	}
}

// connectQuery connects as the user query, which may not subscribe to inboxes.
func connectQuery(t *testing.T, s *server.Server) client {
	t.Helper()
	return connect(t, s, "query", "pass-of-QUERY")
}

// mqttConn is a connection that speaks MQTT 3.1.1, as far as a test needs it.
type mqttConn struct {
	t *testing.T
	net.Conn
}

// text is a string as a packet has it.
func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

// connectMQTT logs in. No two connections have the same client id: the server refuses
// one that comes while it still has the one before, for the second time in a second.
func connectMQTT(ctx context.Context, t *testing.T, addr, user, password string) mqttConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := mqttConn{t, conn}
	c.send(0x10, text("MQTT"), []byte{4, 0xc2, 0, 60}, text("tracker-"+port), text(user), text(password))
	c.expect(0x20, 2, 0, 0)
	return c
}

func (c mqttConn) send(kind byte, parts ...[]byte) {
	c.t.Helper()
	body := bytes.Join(parts, nil)
	if len(body) > 127 {
		c.t.Fatal("packet too long for one byte of length")
	}
	if _, err := c.Write(append([]byte{kind, byte(len(body))}, body...)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads a packet that begins with want, and returns its rest.
func (c mqttConn) expect(want ...byte) (rest []byte) {
	c.t.Helper()
	got := make([]byte, 2)
	if _, err := io.ReadFull(c, got); err != nil {
		c.t.Fatal(err)
	}
	got = append(got, make([]byte, got[1])...)
	if _, err := io.ReadFull(c, got[2:]); err != nil || !bytes.HasPrefix(got, want) {
		c.t.Fatalf("answered % x, %v, want % x", got, err, want)
	}
	return got[len(want):]
}

// publishMQTT publishes one message at least once, waits for the acknowledgement,
// and leaves.
func publishMQTT(ctx context.Context, t *testing.T, addr, user, password, topic, payload string) {
	t.Helper()
	c := connectMQTT(ctx, t, addr, user, password)
	defer c.Close()
	c.send(0x32, text(topic), []byte{0, 1}, []byte(payload))
	c.expect(0x40, 2, 0, 1)
	c.send(0xe0)
}

// subscribeMQTT subscribes and returns the server's code: the quality of service,
// or 0x80 for a refusal.
func subscribeMQTT(ctx context.Context, t *testing.T, addr, user, password, topic string) byte {
	t.Helper()
	c := connectMQTT(ctx, t, addr, user, password)
	defer c.Close()
	c.send(0x82, []byte{0, 1}, text(topic), []byte{1})
	code := c.expect(0x90, 3, 0, 1)[0]
	c.send(0xe0)
	return code
}
