//go:build linux

package machine_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/machine"
)

// workers is the number of concurrent posts.
const workers = 16

// eachDisk runs a fault of the disk of a broker, and of that of a bridge with an embedded
// broker, and checks that the bridge recovers. The number of posts that are repeated has a
// limit.
func eachDisk(t *testing.T, name string, repeats int, fault func(context.Context, *testing.T, *rig, *machine.Control)) {
	t.Helper()
	t.Parallel()
	for _, test := range []struct {
		name     string
		embedded bool
	}{{"broker", false}, {"embedded", true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, harness.Options{Devices: 20}, test.embedded)
			disk := r.broker
			if test.embedded {
				disk = r.bridge
			}
			ctx := harness.Within(t, 5*time.Minute)
			r.start(ctx, t)
			w := r.watch(t)
			ok(t, r.Polled(ctx, time.Now()))
			from := time.Now()
			fault(ctx, t, r, disk)
			r.recovers(ctx, t)
			r.truthful(t, w, from)
			r.settled(ctx, t, name+" of "+test.name, repeats)
		})
	}
}

// TestSlowDisk delays every write and every sync.
func TestSlowDisk(t *testing.T) {
	eachDisk(t, "slow disk", 0, func(ctx context.Context, t *testing.T, _ *rig, disk *machine.Control) {
		disk.Slow(200*time.Millisecond, 500*time.Millisecond)
		wait(ctx, t, 8*time.Second)
		disk.Slow(0, 0)
		if disk.Slowed() < 20 {
			t.Errorf("%d writes were slow: the fault was not there", disk.Slowed())
		}
	})
}

// TestDiskFull fills the disk. A nats-server 2.15 that failed to write its store has to be
// restarted, which is its operator's task. The bridge restarts the embedded one. A post that
// could not be recorded is repeated.
func TestDiskFull(t *testing.T) {
	eachDisk(t, "full disk", workers, func(ctx context.Context, t *testing.T, r *rig, disk *machine.Control) {
		disk.Full(8 << 10)
		ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool { return !h.Ready }))
		wait(ctx, t, 3*time.Second)
		if disk.Refused() == 0 {
			t.Error("no write was refused: the fault was not there")
		}
		disk.Full(-1)
		if !r.embedded {
			ok(t, r.Broker.Kill())
			r.startBroker(ctx, t)
		}
	})
}

// TestMaximumStorage fills the store up to the server's limit, and then makes room.
func TestMaximumStorage(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "nats.conf")
	ok(t, os.WriteFile(conf, []byte("jetstream { max_file_store: 8MB }\n"), 0o600))
	r := newRig(t, harness.Options{Devices: 20}, false, "-c", conf)
	ctx := harness.Within(t, 5*time.Minute)
	r.start(ctx, t)
	w := r.watch(t)
	ok(t, r.Polled(ctx, time.Now()))
	from := time.Now()
	js := r.Broker.JetStream()
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "FILLER", Subjects: []string{"filler"}})
	ok(t, err)
	fill(ctx, t, js)
	ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool { return h.Reasons["publish"] != "" }))
	wait(ctx, t, 4*time.Second)
	ok(t, js.DeleteStream(ctx, "FILLER"))
	r.recovers(ctx, t)
	r.truthful(t, w, from)
	r.settled(ctx, t, "maximum storage", workers)
}

// fill publishes messages of decreasing sizes until there is no room for the smallest.
func fill(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for size := 256 << 10; size > 16; {
		if _, err := js.Publish(ctx, "filler", bytes.Repeat([]byte("x"), size), jetstream.WithRetryAttempts(0)); err != nil {
			ok(t, ctx.Err())
			size /= 4
		}
	}
}
