package bridge_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// events creates the bridge's streams and stores one event and one message to post.
func events(ctx context.Context, t *testing.T, c client) {
	t.Helper()
	subjects := publisher.Subjects("plaspy")
	must[[]publisher.StreamReport](t, "create streams")(publisher.EnsureStreams(ctx, c.js, subjects.Streams(publisher.StreamOptions{Retention: time.Hour, Inbound: true})))
	must[*jetstream.PubAck](t, "publish a location")(c.js.Publish(ctx, subjects.Location("truck7"), []byte(`{"deviceId":"truck7"}`)))
	must[*jetstream.PubAck](t, "publish a message to post")(c.js.Publish(ctx, "plaspy.in.location.truck7", []byte("{}")))
}

// destroyers are the requests that remove messages.
var destroyers = []string{
	"$JS.API.STREAM.PURGE.PLASPY_EVENTS", "$JS.API.STREAM.DELETE.PLASPY_EVENTS", "$JS.API.STREAM.MSG.DELETE.PLASPY_EVENTS",
	"$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$JS.API.STREAM.DELETE.PLASPY_INBOUND", "$JS.API.STREAM.MSG.DELETE.PLASPY_INBOUND",
}

// TestSubscriberRemovesNothing: the server publishes its answers and a push consumer's
// messages to subjects that the subscriber chooses. None of them removes a message, and
// no answer reaches a subject of the bridge's account.
func TestSubscriberRemovesNothing(t *testing.T) {
	t.Parallel()
	s, _ := natsConf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	operator := connect(t, s, "operator", "pass-of-OPERATOR")
	events(ctx, t, operator)
	c := connect(t, s, "subscriber", "pass-of-SUBSCRIBER")
	for durable, policy := range map[string]jetstream.DeliverPolicy{"all": jetstream.DeliverAllPolicy, "new": jetstream.DeliverNewPolicy} {
		must[jetstream.Consumer](t, "create consumer")(c.js.CreateOrUpdateConsumer(ctx, "PLASPY_EVENTS", jetstream.ConsumerConfig{Durable: durable, DeliverPolicy: policy}))
	}
	forged := must[*nats.Subscription](t, "subscribe")(operator.SubscribeSync("plaspy.*.forged"))
	for _, target := range append([]string{"plaspy.location.forged", "plaspy.in.location.forged"}, destroyers...) {
		for _, r := range []struct{ subject, body string }{
			{"$JS.API.STREAM.INFO.PLASPY_EVENTS", ""},
			{"$JS.API.STREAM.NAMES", ""},
			{"$JS.API.STREAM.MSG.GET.PLASPY_EVENTS", `{"seq":1}`},
			{"$JS.API.DIRECT.GET.PLASPY_EVENTS", `{"seq":1}`},
			{"$JS.API.DIRECT.GET.PLASPY_EVENTS", `{"seq":99}`},
			{"$JS.API.DIRECT.GET.PLASPY_EVENTS", `{"multi_last":["plaspy.location.*"]}`},
			{"$JS.API.DIRECT.GET.PLASPY_EVENTS.plaspy.location.truck7", ""},
			{"$JS.API.DIRECT.GET.KV_plaspy_last.$KV.plaspy_last.none", ""},
			{"$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.all", `{"batch":1,"no_wait":true}`},
			{"$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.new", `{"batch":1,"no_wait":true}`},
			{"$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.new", `{"batch":1,"expires":1000000}`},
			{"$JS.API.CONSUMER.MSG.NEXT.PLASPY_EVENTS.none", ""},
			{"$JS.API.CONSUMER.LIST.PLASPY_EVENTS", ""},
			{"plaspy.api.devices", ""},
		} {
			if err := c.PublishRequest(r.subject, target, []byte(r.body)); err != nil {
				t.Fatal(err)
			}
		}
		push := `{"stream_name":"PLASPY_EVENTS","config":{"name":"push","deliver_subject":"` + target + `","ack_policy":"none","deliver_policy":"new","idle_heartbeat":100000000}}`
		if m := must[*nats.Msg](t, "create push consumer")(c.Request("$JS.API.CONSUMER.CREATE.PLASPY_EVENTS.push", []byte(push), 30*time.Second)); !bytes.Contains(m.Data, []byte("error")) {
			// A message that the consumer delivers, in place of waiting for a heartbeat.
			must[*jetstream.PubAck](t, "publish")(operator.js.Publish(ctx, "plaspy.device.truck7", nil))
		}
		must[*nats.Msg](t, "delete push consumer")(c.Request("$JS.API.CONSUMER.DELETE.PLASPY_EVENTS.push", nil, 30*time.Second))
	}
	for name, msgs := range map[string]uint64{"PLASPY_EVENTS": 2, "PLASPY_INBOUND": 1} {
		info := must[jetstream.Stream](t, "look up "+name)(operator.js.Stream(ctx, name)).CachedInfo()
		if info.State.FirstSeq != 1 || info.State.NumDeleted != 0 || info.State.Msgs < msgs {
			t.Errorf("%s lost messages: %+v", name, info.State)
		}
	}
	if n, _, _ := forged.Pending(); n != 0 {
		t.Errorf("%d answers went to subjects of the bridge's account", n)
	}
}
