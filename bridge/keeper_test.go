package bridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

func TestKeeperMakesADeletedStreamAgain(t *testing.T) {
	t.Parallel()
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Profile: fleet.Unchanged})
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 3)
	again, err := b.broker.conn.SubscribeSync("plaspy.location.*")
	if err != nil {
		t.Fatal(err)
	}
	js := natstest.JetStream(t, b.broker.conn.Conn)
	// The new stream's first sequence comes from the entries that the bucket has of the old one.
	soon(t, "plaspy_last has all devices", func(ctx context.Context) error {
		st, err := js.Stream(ctx, "KV_plaspy_last")
		if err != nil {
			return err
		}
		if n := st.CachedInfo().State.Msgs; n < 3 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
	if err := js.DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	// Nothing has changed at the API, and the stream gets it all again.
	for range 3 {
		if _, err := again.NextMsg(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	follow(t, b, "plaspy.location.*", 3)
	// The new stream goes on from the old one's sequences.
	st, err := js.Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if first := st.CachedInfo().State.FirstSeq; first < 4 {
		t.Errorf("the new stream begins at %d, want it to go on from the old one", first)
	}
}

// soon waits for an action that takes the keeper a few seconds at most.
func soon(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestKeeperMakesEveryDeletedStreamAgain(t *testing.T) {
	t.Parallel()
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Profile: fleet.Unchanged})
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 3)
	js := natstest.JetStream(t, b.broker.conn.Conn)
	names := []string{"KV_plaspy_last", "PLASPY_INBOUND", "PLASPY_RESULTS", "PLASPY_DLQ"}
	for _, name := range names {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if !*proof { // else it takes the keeper some seconds to look at all streams
		b.broker.keeper.Look()
	}
	for _, name := range names {
		soon(t, name, func(ctx context.Context) error { _, err := js.Stream(ctx, name); return err })
	}
	soon(t, "the bucket", func(ctx context.Context) error { return sameAsStream(ctx, js) })
	// The consumer side goes on with the new streams.
	if _, err := js.Publish(t.Context(), "plaspy.in.location.device0001", []byte(`{"dateTime": "2026-01-02T03:04:05Z", "latitude": 1, "longitude": 2}`)); err != nil {
		t.Fatal(err)
	}
	soon(t, "the result", func(ctx context.Context) error {
		st, err := js.Stream(ctx, "PLASPY_RESULTS")
		if err == nil && st.CachedInfo().State.Msgs == 0 {
			err = fmt.Errorf("not found yet")
		}
		return err
	})
	readyz(t, b, "ready", ready)
}

// sameAsStream reports whether the bucket holds each device's newest event.
func sameAsStream(ctx context.Context, js jetstream.JetStream) error {
	const devices = 3
	st, err := js.Stream(ctx, "PLASPY_EVENTS")
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, "plaspy_last")
	if err != nil {
		return err
	}
	for i := range devices {
		device := fmt.Sprintf("device%04d", i+1)
		m, err := st.GetLastMsgForSubject(ctx, "plaspy.location."+device)
		if err != nil {
			return err
		}
		entry, err := kv.Get(ctx, device)
		if err != nil {
			return err
		}
		if string(entry.Value()) != string(m.Data) {
			return fmt.Errorf("%s: the bucket has %s, the stream %s", device, entry.Value(), m.Data)
		}
	}
	return nil
}

// TestBucketFollowsAStreamThatWasMadeAgain takes as long as the server needs to
// find that the bucket's source is another stream.
func TestBucketFollowsAStreamThatWasMadeAgain(t *testing.T) {
	t.Parallel()
	if !*proof {
		t.Skip("waits for the server's checks of sources; run with -proof")
	}
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Profile: fleet.EverySecond})
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 9)
	js := natstest.JetStream(t, b.broker.conn.Conn)
	soon(t, "before", func(ctx context.Context) error { return sameAsStream(ctx, js) })
	if err := js.DeleteStream(t.Context(), "PLASPY_EVENTS"); err != nil {
		t.Fatal(err)
	}
	soon(t, "after", func(ctx context.Context) error { return sameAsStream(ctx, js) })
	st, err := js.Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if first := st.CachedInfo().State.FirstSeq; first < 8 {
		t.Errorf("the new stream begins at %d, want it to go on from the old one", first)
	}
}

func TestBucketWithoutASourceIsFilled(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, natstest.Listen)
	js := natstest.JetStream(t, srv.Client(t))
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "plaspy_last"}); err != nil {
		t.Fatal(err)
	}
	_, cfg := fleetOf(t, sim.Options{Devices: 3, Profile: fleet.Every(100 * time.Millisecond)})
	cfg.NATSURL = config.Servers(srv.ClientURL())
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 10)
	soon(t, "the bucket", func(ctx context.Context) error { return sameAsStream(ctx, js) })
}

func TestPurgedEventsComeBack(t *testing.T) {
	t.Parallel()
	for name, purge := range map[string]func(*testing.T, jetstream.Stream) error{
		"all": func(t *testing.T, s jetstream.Stream) error { return s.Purge(t.Context()) },
		"one device": func(t *testing.T, s jetstream.Stream) error {
			return s.Purge(t.Context(), jetstream.WithPurgeSubject("plaspy.location.device0002"))
		},
		"one message": func(t *testing.T, s jetstream.Stream) error {
			m, err := s.GetLastMsgForSubject(t.Context(), "plaspy.location.device0002")
			if err != nil {
				return err
			}
			return s.DeleteMsg(t.Context(), m.Sequence)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg := fleetOf(t, sim.Options{Devices: 3, Profile: fleet.Unchanged})
			b, _ := launch(t, cfg)
			follow(t, b, "plaspy.location.*", 3)
			js := natstest.JetStream(t, b.broker.conn.Conn)
			st, err := js.Stream(t.Context(), "PLASPY_EVENTS")
			if err != nil {
				t.Fatal(err)
			}
			if err := purge(t, st); err != nil {
				t.Fatal(err)
			}
			soon(t, "the events", func(ctx context.Context) error { return sameAsStream(ctx, js) })
		})
	}
}
