package harness_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness"
)

var upgradeFrom = flag.String("upgrade-from", "", "the program of an older release, for TestUpgrade; if empty, the current one")

// TestUpgrade lets an older program write events, inbound messages and dead letters, and
// then upgrades it. Nothing may be lost, duplicated or reordered, and the dead letters have
// to be readable.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name    string
		upgrade func(ctx context.Context, r *harness.Rig, current string) error
	}{
		{"replaced", func(ctx context.Context, r *harness.Rig, current string) error {
			if _, err := r.Bridge.Stop(ctx); err != nil {
				return err
			}
			r.Bridge.Upgrade(current)
			return r.Bridge.Start(ctx)
		}},
		{"killed", func(ctx context.Context, r *harness.Rig, current string) error {
			if err := r.Bridge.Kill(); err != nil {
				return err
			}
			r.Bridge.Upgrade(current)
			return r.Bridge.Start(ctx)
		}},
		{"side by side", func(ctx context.Context, r *harness.Rig, current string) error {
			next, err := r.Add(ctx)
			if err != nil {
				return err
			}
			next.Upgrade(current)
			if err := next.Start(ctx); err != nil {
				return err
			}
			if err := next.Ready(ctx); err != nil {
				return err
			}
			_, err = r.Bridge.Stop(ctx)
			return err
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			// A short refresh, because the producer adds devices to the list.
			r := newRig(t, harness.Options{Devices: 20, Env: []string{"BRIDGE_DEVICES_REFRESH=10s"}})
			current := r.Bridge.Binary()
			if *upgradeFrom != "" {
				r.Bridge.Upgrade(*upgradeFrom)
			}
			ctx := harness.Within(t, 2*time.Minute)
			ok(t, r.Start(ctx))
			r.Produce(5, 50*time.Millisecond)
			const letters = 3
			ok(t, invalid(ctx, r.Broker.JetStream(), letters))
			ok(t, r.Inject(ctx, nil, 3*time.Second))
			ok(t, how.upgrade(ctx, r, current))
			ok(t, r.Ready(ctx))
			ok(t, r.Inject(ctx, nil, 3*time.Second))
			ok(t, r.Settle(ctx))
			report, err := r.Report(ctx, "upgraded, "+how.name, nil)
			ok(t, err)
			t.Logf("\n%s", report.String())
			if err := report.Err(); err != nil {
				t.Error(err)
				keep(t, r)
			}
			cmd := exec.CommandContext(ctx, current, "dlq", "list", "--json")
			cmd.Env = r.Bridge.Env()
			out, err := cmd.Output()
			ok(t, err)
			var list []json.RawMessage
			if err := json.Unmarshal(out, &list); err != nil || len(list) != letters {
				t.Errorf("%d dead letters, want %d: %v\n%s", len(list), letters, err, out)
			}
		})
	}
}

// invalid publishes malformed messages and waits until they are dead letters.
func invalid(ctx context.Context, js jetstream.JetStream, n int) error {
	for i := range n {
		m := &nats.Msg{Subject: "plaspy.in.location.device0001", Data: []byte("{")}
		if _, err := js.PublishMsg(ctx, m, jetstream.WithMsgID(fmt.Sprintf("harness-99-%d", i))); err != nil {
			return err
		}
	}
	dead, err := js.OrderedConsumer(ctx, "PLASPY_DLQ", jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	for range n {
		if _, err := dead.Next(jetstream.FetchMaxWait(30 * time.Second)); err != nil {
			return fmt.Errorf("dead letter: %w", err)
		}
	}
	return nil
}
