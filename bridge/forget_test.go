package bridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/forget"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher"
)

// A device that is forgotten leaves nothing behind and does not come back, while
// the others go on; undone, it does.
func TestForget(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 3, Seed: 1, Profile: fleet.EverySecond})
	b, _ := launch(t, cfg)
	follow(t, b, "plaspy.location.*", 6)
	js, subjects := b.pub.JetStream(), b.pub.Subjects()
	id := api.IDs()[0]
	token := publisher.Encode(id)
	removed, err := forget.Erase(t.Context(), js, subjects, id, 300*time.Millisecond)
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
	other := publisher.Encode(api.IDs()[1])
	before := count(other)
	soon(t, "events of another device", func(context.Context) error {
		if n := count(other); n < before+3 {
			return fmt.Errorf("%d more", n-before)
		}
		return nil
	})
	if n := count(token); n != 0 {
		t.Errorf("%d messages of the forgotten device came back", n)
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
