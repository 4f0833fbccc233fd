package natsserver

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connect connects to a server in this process.
func connect(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc := natstest.Start(t).Client(t)
	return nc, natstest.JetStream(t, nc)
}

// within returns a context with a generous timeout.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// publish publishes an event with an id.
func publish(ctx context.Context, t *testing.T, js jetstream.JetStream, subject, id, body string) {
	t.Helper()
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{publisher.HeaderID: {id}, nats.MsgIdHdr: {id}}}
	_, err := js.PublishMsg(ctx, m)
	ok(t, err)
}

// TestReadEvents reads a stream with events of each kind.
func TestReadEvents(t *testing.T) {
	_, js := connect(t)
	ctx := within(t)
	if events, err := ReadEvents(ctx, js, Subjects); err != nil || events != nil {
		t.Errorf("got %v, %v from a stream that does not exist", events, err)
	}
	if n, err := Count(ctx, js, Subjects.Events()); err != nil || n != 0 {
		t.Errorf("got %d messages, %v in a stream that does not exist", n, err)
	}
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: Subjects.Events(), Subjects: []string{"plaspy.>"}})
	ok(t, err)
	if events, err := ReadEvents(ctx, js, Subjects); err != nil || events != nil {
		t.Errorf("got %v, %v from an empty stream", events, err)
	}
	const raw = `{"dateTime" : "1"}`
	publish(ctx, t, js, Subjects.Device("a"), "1", `{"deviceId":"a","change":"added"}`)
	publish(ctx, t, js, Subjects.Location("a"), "2", `{"deviceId":"a","backfilled":true,"location":`+raw+`}`)
	publish(ctx, t, js, Subjects.Alert("a", "X"), "3", `{"deviceId":"a","alert":"X","state":"raised","dateTime":"1","source":"bridge"}`)
	events, err := ReadEvents(ctx, js, Subjects)
	ok(t, err)
	want := []judge.Event{
		{Seq: 1, ID: "1", Kind: "device", Device: "a", Change: "added"},
		{Seq: 2, ID: "2", Kind: "location", Device: "a", Raw: raw, Backfilled: true},
		{Seq: 3, ID: "3", Kind: "alert", Device: "a", Alert: "X", State: "raised", DateTime: "1", Source: "bridge"},
	}
	if diff := cmp.Diff(events, want, cmpopts.IgnoreFields(judge.Event{}, "Stored"), cmpopts.IgnoreUnexported(judge.Event{})); diff != "" {
		t.Errorf("got - want +:\n%s", diff)
	}
	if slices.ContainsFunc(events, func(e judge.Event) bool { return e.Stored.IsZero() }) {
		t.Error("an event lacks the time at which it was stored")
	}
	if n, err := Count(ctx, js, Subjects.Events()); err != nil || n != 3 {
		t.Errorf("got %d messages, %v, want 3", n, err)
	}
}

// TestMalformed reads events that the bridge must not publish.
func TestMalformed(t *testing.T) {
	_, js := connect(t)
	ctx := within(t)
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: Subjects.Events(), Subjects: []string{"plaspy.>"}})
	ok(t, err)
	for _, test := range []struct{ name, subject, id, body string }{
		{"unknown subject", "plaspy.other.a", "1", `{"deviceId":"a"}`},
		{"no id", Subjects.Location("a"), "", `{"deviceId":"a"}`},
		{"no JSON", Subjects.Location("a"), "2", `{`},
		{"other device", Subjects.Location("a"), "3", `{"deviceId":"b"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			ok(t, stream.Purge(ctx))
			publish(ctx, t, js, test.subject, test.id, test.body)
			if events, err := ReadEvents(ctx, js, Subjects); err == nil {
				t.Errorf("got %+v, want an error", events)
			}
		})
	}
}

// TestRemovals follows the removal of inbound messages and not those of another stream.
func TestRemovals(t *testing.T) {
	nc, js := connect(t)
	ctx := within(t)
	r := removals{at: map[uint64][]time.Time{}}
	ok(t, r.watch(nc))
	for _, name := range []string{"OTHER", Subjects.Inbound()} {
		stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}})
		ok(t, err)
		for i := range 3 {
			_, err := js.Publish(ctx, name, fmt.Append(nil, i))
			ok(t, err)
		}
		ok(t, stream.DeleteMsg(ctx, 2))
		if err := stream.DeleteMsg(ctx, 99); err == nil {
			t.Error("a message that does not exist was removed")
		}
		ok(t, stream.DeleteMsg(ctx, 3))
	}
	for len(r.acknowledged()) < 2 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("got removals %v, want those of messages 2 and 3", r.acknowledged())
		}
	}
	if got := r.acknowledged(); len(got) != 2 || len(got[2]) != 1 || len(got[3]) != 1 {
		t.Errorf("got removals %v, want those of messages 2 and 3", got)
	}
}

// TestLeads checks which answers of a cluster count as those of the leader.
func TestLeads(t *testing.T) {
	peer := func(active time.Duration, offline bool) *jetstream.PeerInfo {
		return &jetstream.PeerInfo{Active: active, Offline: offline}
	}
	for _, test := range []struct {
		name    string
		cluster jetstream.ClusterInfo
		want    bool
	}{
		{"both replicas follow", jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{peer(1, false), peer(1, false)}}, true},
		{"one replica follows", jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{peer(1, false), peer(lease, false)}}, true},
		{"one replica is offline", jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{peer(1, true), peer(1, false)}}, true},
		{"no replica follows", jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{peer(0, false), peer(lease, false)}}, false},
		{"no leader", jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{peer(1, false), peer(1, false)}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := leads(&test.cluster); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}
