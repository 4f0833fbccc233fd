package bridge

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/forget"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// A device that is forgotten leaves nothing behind and does not come back, while
// the others go on; undone, it does.
func TestForget(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.Every(100 * time.Millisecond)})
	b, _ := launch(t, cfg)
	js, subjects := natstest.JetStream(t, b.broker.conn.Conn), b.broker.pub.Subjects()
	id := api.IDs()[0]
	token := publisher.Encode(id)
	follow(t, b, subjects.Location(token), 2)
	soon(t, "the bucket has the device", func(ctx context.Context) error {
		kv, err := js.KeyValue(ctx, "plaspy_last")
		if err == nil {
			_, err = kv.Get(ctx, token)
		}
		return err
	})
	removed, err := forget.Erase(t.Context(), js, subjects, id, forget.Options{Pause: 300 * time.Millisecond})
	if err != nil || removed["PLASPY_EVENTS"] == 0 || removed["KV_plaspy_last"] == 0 {
		t.Fatalf("removed %v: %v", removed, err)
	}
	events, err := js.Stream(t.Context(), subjects.Events())
	if err != nil {
		t.Fatal(err)
	}
	count := func(device string) (n uint64) {
		for _, subject := range []string{subjects.Location(device), subjects.Alert(device, "*"), subjects.Device(device)} {
			info, err := events.Info(t.Context(), jetstream.WithSubjectFilter(subject))
			if err != nil {
				t.Fatal(err)
			}
			for _, messages := range info.State.Subjects {
				n += messages
			}
		}
		return n
	}
	// A poll in flight may have published after the last round on a busy machine.
	soon(t, "the device is forgotten", func(context.Context) error {
		if b.polling.pool.Polls(id) {
			return fmt.Errorf("it is polled")
		}
		return nil
	})
	if _, err := forget.Erase(t.Context(), js, subjects, id, forget.Options{Pause: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	other := publisher.Encode(api.IDs()[1])
	before := count(other)
	soon(t, "events of another device", func(context.Context) error {
		if n := count(other); n < before+3 {
			return fmt.Errorf("%d more", n-before)
		}
		return nil
	})
	if n := count(token); n != 0 {
		t.Errorf("%d messages of the forgotten device were published again", n)
	}
	if ids, err := forget.Devices(t.Context(), js, subjects); err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("forgotten: %v, %v", ids, err)
	}
	if known, err := forget.Undo(t.Context(), js, subjects, id); !known || err != nil {
		t.Fatalf("undo: %v, %v", known, err)
	}
	follow(t, b, "plaspy.location."+token, 1)
	if known, err := forget.Undo(t.Context(), js, subjects, id); known || err != nil {
		t.Errorf("a second undo: %v, %v", known, err)
	}
}

// Messages that wait to be posted are counted, and removed if that is asked for. They
// are not posted then, except the one in flight, and later ones are.
func TestForgetInbound(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 2, Seed: 1, Profile: fleet.EverySecond, Record: 100})
	fail := api.Fault(fault.Rule{Kind: fault.Status, Status: 503, Endpoint: "locations", Probability: 1})
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 2)
	js, subjects := natstest.JetStream(t, b.broker.conn.Conn), b.broker.pub.Subjects()
	id, other := api.IDs()[0], api.IDs()[1]
	post := func(device string, longitude int) {
		body := fmt.Sprintf(`{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":%d}`, longitude)
		if _, err := js.Publish(t.Context(), subjects.InLocation(publisher.Encode(device)), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	const waiting = 5
	for i := range waiting {
		post(id, i)
	}
	post(other, 50)
	// The lanes of both devices then leave all but their oldest message to the stream.
	natstest.Eventually(t, "the API is down", func() bool { return b.consuming.consumer.Status().Parked == 2 })
	options := forget.Options{Pause: 100 * time.Millisecond}
	removed, err := forget.Erase(t.Context(), js, subjects, id, options)
	if err != nil || removed["PLASPY_INBOUND"] != 0 {
		t.Fatalf("removed %v: %v", removed, err)
	}
	if n, err := forget.Waiting(t.Context(), js, subjects, id); n != waiting || err != nil {
		t.Errorf("%d wait, want %d: %v", n, waiting, err)
	}
	options.Inbound = true
	if removed, err = forget.Erase(t.Context(), js, subjects, id, options); err != nil || removed["PLASPY_INBOUND"] != waiting {
		t.Fatalf("removed %v: %v", removed, err)
	}
	fail()
	post(id, 100)
	for device, longitude := range map[string]string{id: "100", other: "50"} {
		soon(t, "the message after", func(context.Context) error {
			for _, p := range api.Posts(device) {
				if p.Fault == "" && strings.Contains(p.Body, `"longitude":`+longitude) {
					return nil
				}
			}
			return fmt.Errorf("%s: not posted", device)
		})
	}
	// The oldest one was in memory.
	for _, p := range api.Posts(id) {
		if p.Fault == "" && !strings.Contains(p.Body, `"longitude":100`) && !strings.Contains(p.Body, `"longitude":0`) {
			t.Errorf("posted after it was removed: %s", p.Body)
		}
	}
}
