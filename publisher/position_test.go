package publisher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestState(t *testing.T) {
	p := natstest.Start(t).Publisher(t, subjects)
	alert := func(state string) *publisher.Event {
		return subjects.AlertEvent(&publisher.Alert{DeviceID: "d", Token: "d", Alert: "SOS", AlertToken: "SOS", State: state,
			DateTime: json.RawMessage(`"2026-01-02T03:04:01Z"`), Latitude: json.RawMessage("1"), Longitude: json.RawMessage("2")}, 0)
	}
	dev := subjects.DeviceEvent(&publisher.Device{DeviceID: "d", Token: "d", Change: publisher.Added, Raw: json.RawMessage(`{"id":"d"}`), Hash: 9}, 0)
	events := []*publisher.Event{
		dev, subjects.LocationEvent(location("d", `{"v":1}`, 1), 0), alert(publisher.Raised),
		subjects.LocationEvent(location("d", `{"v":2}`, 2), 0), alert(publisher.Cleared),
		subjects.LocationEvent(location("e", `{"v":3}`, 3), 0),
	}
	if err := publish(t, p, events...); err != nil {
		t.Fatal(err)
	}
	var got []string
	mark, err := p.Reader().State(t.Context(), false, func(s publisher.Stored) {
		got = append(got, fmt.Sprintf("%s %s %s %d", s.Kind, s.Device, s.Alert, s.Seq))
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{"alert d SOS 5", "device d  1", "location d  4", "location e  6"}
	if !slices.Equal(got, want) {
		t.Errorf("state %q, want %q", got, want)
	}
	if mark.LastSeq != 6 || mark.FirstSeq != 1 || mark.Created.IsZero() {
		t.Errorf("mark %+v", mark)
	}
	got = nil
	if _, err := p.Reader().State(t.Context(), true, func(s publisher.Stored) {
		if s.Kind == "alert" {
			got = append(got, fmt.Sprint(s.Seq))
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"3", "5"}) {
		t.Errorf("all alerts %q, want both", got)
	}
}

func TestStateAfterRetentionComesFromTheBucket(t *testing.T) {
	t.Parallel()
	p := natstest.Start(t).Publisher(t, subjects)
	if err := publish(t, p, subjects.LocationEvent(location("parked", `{"v":1}`, 1), 0)); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, p, subjects.LocationEvent(location("moving", `{"v":2}`, 2), 0)); err != nil {
		t.Fatal(err)
	}
	kv, err := natstest.Own(t, p).KeyValue(t.Context(), "plaspy_last")
	if err != nil {
		t.Fatal(err)
	}
	watch, err := kv.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for sourced := 0; sourced < 2; {
		if entry := <-watch.Updates(); entry != nil {
			sourced++
		}
	}
	if err := watch.Stop(); err != nil {
		t.Fatal(err)
	}
	st, err := natstest.Own(t, p).Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context(), jetstream.WithPurgeSequence(2)); err != nil {
		t.Fatal(err)
	}
	state := map[string]publisher.Stored{}
	if _, err := p.Reader().State(t.Context(), false, func(s publisher.Stored) { state[s.Device] = s }); err != nil {
		t.Fatal(err)
	}
	if s, ok := state["parked"]; ok {
		t.Errorf("parked device: %+v, want none: the message was purged long before its time", s)
	}
	// With this retention it can have aged out.
	cfg := st.CachedInfo().Config
	cfg.MaxAge, cfg.Duplicates = time.Second, time.Second
	if _, err := natstest.Own(t, p).UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	clear(state)
	if _, err := p.Reader().State(t.Context(), false, func(s publisher.Stored) { state[s.Device] = s }); err != nil {
		t.Fatal(err)
	}
	if s := state["parked"]; s.Seq != 0 || !strings.Contains(string(s.Body), `"location":{"v":1}`) {
		t.Errorf("parked device: %+v, want it from the bucket with sequence 0", s)
	}
	// A stream that was deleted and made again has lost it: it is to be published again.
	if err := natstest.Own(t, p).DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(t.Context(), natstest.Own(t, p), subjects.Streams(publisher.StreamOptions{})); err != nil {
		t.Fatal(err)
	}
	clear(state)
	if _, err := p.Reader().State(t.Context(), false, func(s publisher.Stored) { state[s.Device] = s }); err != nil {
		t.Fatal(err)
	}
	if len(state) != 0 {
		t.Errorf("state of a new stream: %v, want none", state)
	}
}

// TestFilledByHand: a bucket without a source is filled by several replicas at
// once, and never goes back.
func TestFilledByHand(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a, b := srv.Publisher(t, subjects), srv.Publisher(t, subjects)
	js := a.JetStream()
	if err := js.DeleteKeyValue(t.Context(), "plaspy_last"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_last", History: 64}); err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	next := func(v int) {
		e := subjects.LocationEvent(location("d", fmt.Sprintf(`{"v":%d}`, v), uint64(v)), seq)
		if err := publish(t, a, e); err != nil {
			t.Fatal(err)
		}
		seq = e.Seq
	}
	next(1)
	for _, p := range []*publisher.Publisher{a, b} {
		natstest.Run(t, func(ctx context.Context) {
			if err := p.Positions().FillLast(ctx); ctx.Err() == nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
	const last = 40
	for v := 2; v <= last; v++ {
		next(v)
	}
	kv, err := js.KeyValue(t.Context(), "plaspy_last")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"v":%d}`, last)
	natstest.Eventually(t, "the newest location is in the bucket", func() bool {
		e, err := kv.Get(t.Context(), "d")
		return err == nil && strings.Contains(string(e.Value()), want)
	})
	history, err := kv.History(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, e := range history {
		if seen[string(e.Value())] || i > 0 && string(e.Value()) <= string(history[i-1].Value()) && len(e.Value()) <= len(history[i-1].Value()) {
			t.Errorf("entry %d is %s, after %s", i, e.Value(), history[i-1].Value())
		}
		seen[string(e.Value())] = true
	}
}

// TestEarlierReplicasBucket: the bucket of a version that kept its keys for a day is used without a report. The same
// difference of the events stream is reported.
func TestEarlierReplicasBucket(t *testing.T) {
	t.Parallel()
	js := natstest.JetStream(t, natstest.Start(t).Client(t))
	want := subjects.Streams(publisher.StreamOptions{Retention: 4 * 24 * time.Hour})
	for _, cfg := range want {
		if cfg.MaxAge == 4*24*time.Hour {
			cfg.MaxAge = 24 * time.Hour
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
	}
	reports, err := publisher.EnsureStreams(t.Context(), js, want)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range reports {
		switch r.Stream {
		case subjects.Events():
			found++
			if !slices.Equal(r.Differs, []string{"max_age is 24h0m0s, the bridge would set 96h0m0s"}) {
				t.Errorf("%+v", r)
			}
		case publisher.BucketStream(subjects.ReplicasBucket()):
			found++
			if r.Created || len(r.Differs) > 0 {
				t.Errorf("%+v", r)
			}
		}
	}
	if found != 2 {
		t.Errorf("reports %+v", reports)
	}
}

// TestQuietRead: a reading of the state ends with an error if the stream does not send
// the rest of its messages.
func TestQuietRead(t *testing.T) {
	p := natstest.Start(t).Publisher(t, subjects)
	publisher.SetReadIdle(p, time.Second/2)
	js := natstest.Own(t, p)
	const devices = 1_500 // more than the client requests at once
	for i := range devices {
		if _, err := js.PublishAsync(subjects.Location(fmt.Sprint("d", i)), []byte("{}"), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	seen := 0
	_, err := p.Reader().State(t.Context(), false, func(publisher.Stored) {
		if seen++; seen > 1 {
			return
		}
		st, err := js.Stream(t.Context(), subjects.Events())
		if err == nil {
			err = st.Purge(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err == nil || seen >= devices {
		t.Errorf("%d of %d messages read, %v", seen, devices, err)
	}
}
