//go:build linux

package machine_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/machine"
	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest/loopback"
)

var (
	proof = flag.Bool("proof", false, "run the tests that start whole processes; takes minutes")
	ports = &loopback.Ports{}
	dir   string // of the binaries, once they are built
	built = sync.OnceValues(func() (b process.Binaries, err error) {
		if dir, err = os.MkdirTemp("", "plaspy-bridge-machine-"); err != nil {
			return b, err
		}
		return machine.Build(context.Background(), dir)
	})
)

func TestMain(m *testing.M) { harness.Main(m, func() { _ = os.RemoveAll(dir) }) }

// rig is a rig with machines of their own for the bridge and the broker.
type rig struct {
	*harness.Rig
	bridge, broker *machine.Control

	args     []string // of the broker
	embedded bool     // the broker is in the bridge
	data     string   // its store then

	every    time.Duration        // interval of the inbound messages of a device
	nodes    []*natsserver.Broker // of a cluster
	patience time.Duration        // how long a device may be unpolled before the bridge is not ready
}

// newRig makes a rig that is closed at the end of the test. With embedded the bridge has
// an embedded broker, and the rig reads from that one.
func newRig(t *testing.T, o harness.Options, embedded bool, args ...string) *rig {
	t.Helper()
	if !*proof {
		t.Skip("starts whole processes; run with -proof")
	}
	var err error
	if o.Binaries, err = built(); err != nil {
		t.Fatal(err)
	}
	o.Ports, o.Dir, o.Seed = ports, t.TempDir(), 1
	h, err := harness.NewRig(t.Context(), o)
	ok(t, err)
	t.Cleanup(h.Close)
	r := &rig{Rig: h, args: append([]string{"-n", "harness"}, args...), embedded: embedded, data: filepath.Join(o.Dir, "data"), every: 50 * time.Millisecond, patience: patience}
	r.bridge = control(t, filepath.Join(o.Dir, "bridge-faults"), r.data)
	r.broker = control(t, filepath.Join(o.Dir, "broker-faults"), h.Broker.Store())
	h.Bridge.Set(r.bridge.Env()...)
	if embedded {
		h.Bridge.Set("NATS_URL=", "BRIDGE_EMBEDDED_ADDR="+h.Broker.URL()[len("nats://"):])
	}
	return r
}

func control(t *testing.T, path, disk string) *machine.Control {
	t.Helper()
	c, err := machine.NewControl(path, disk)
	ok(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// startBroker starts the broker and waits until it answers.
func (r *rig) startBroker(ctx context.Context, t *testing.T) {
	t.Helper()
	ok(t, r.Broker.Launch(r.args, r.broker.Env()))
	ok(t, r.Broker.Answers(ctx))
}

// start starts everything, with a producer of inbound messages, and waits until
// the bridge is ready.
func (r *rig) start(ctx context.Context, t *testing.T) {
	t.Helper()
	if !r.embedded {
		r.startBroker(ctx, t)
	}
	r.Produce(10, r.every) // before the bridge reads its list of devices
	ok(t, r.Bridge.Start(ctx))
	ok(t, r.Bridge.Ready(ctx))
}

// settled ends a run and fails the test if the report has a fault. again is the number of
// inbound messages that may be posted a second time without an excuse of the judge, which
// does not know the faults of this package.
func (r *rig) settled(ctx context.Context, t *testing.T, name string, again int) judge.Report {
	t.Helper()
	begun := time.Now()
	if err := r.Settle(ctx); err != nil {
		r.dump(t)
		t.Fatal(err)
	}
	if took := time.Since(begun); took > harness.AtMost(slow) && r.nodes == nil {
		t.Errorf("it took %v to be at work again after the last fault", took)
	}
	if r.embedded { // it ended with the bridge: another reads its store
		ok(t, r.Broker.Launch([]string{"-sd", r.data}, nil))
		ok(t, r.Broker.Answers(ctx))
	}
	report, err := r.Report(ctx, name, nil)
	ok(t, err)
	t.Logf("\n%s", report.String())
	if in := &report.Inbound; in.Repeated-in.Allowed <= again {
		in.Allowed = in.Repeated
	}
	if err := report.Err(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if report.Inbound.Dead != 0 {
		t.Errorf("%d dead letters", report.Inbound.Dead)
	}
	if mb := report.RSS >> 20; mb > mostMemory {
		t.Errorf("the bridge had %d MB resident, more than %d", mb, mostMemory)
	}
	log, err := r.Bridge.Log()
	ok(t, err)
	if n := strings.Count(log, "\n"); n > mostLines {
		t.Errorf("the bridge logged %d lines, more than %d", n, mostLines)
	}
	if r.nodes == nil {
		// In a cluster the server takes up to a minute, after a change of leaders,
		// until it goes on with copying.
		r.newest(ctx, t)
	}
	if t.Failed() {
		r.keep(t)
	}
	return report
}

// newest fails the test if the bucket of last locations differs from the stream.
func (r *rig) newest(ctx context.Context, t *testing.T) {
	t.Helper()
	events, err := natsserver.ReadEvents(ctx, r.Broker.JetStream(), subjects)
	ok(t, err)
	want := map[string]string{}
	for _, e := range events {
		if e.Kind == "location" {
			want[e.Device] = e.Raw
		}
	}
	bucket, err := r.Broker.JetStream().KeyValue(ctx, subjects.LastBucket())
	ok(t, err)
	for tick := time.NewTicker(50 * time.Millisecond); ; { // the server copies the events in the background
		var wrong string
		for device, raw := range want {
			entry, err := bucket.Get(ctx, publisher.Encode(device))
			if err != nil {
				wrong = fmt.Sprintf("%s: %v", device, err)
			} else if got := string(entry.Value()); !strings.Contains(got, raw) {
				wrong = fmt.Sprintf("%s: got %s, want %s", device, got, raw)
			}
		}
		if wrong == "" {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			t.Fatalf("the bucket of last locations is not right: %s", wrong)
		}
	}
}

const subjects publisher.Subjects = "plaspy"

// slow is how long a bridge may take, after the last fault, to poll every device, finish
// the inbound messages and stop.
const slow = 20 * time.Second

// mostMemory limits the memory of a bridge with few devices, in megabytes.
const mostMemory = 200

// mostLines limits the lines in its log. A repeated failure is logged once.
const mostLines = 300

// dump makes a bridge that should be working print its goroutines.
func (r *rig) dump(t *testing.T) {
	t.Helper()
	if pid := r.Bridge.PID(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // it may just have ended
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = r.Bridge.Wait(ctx) // the log is shown in any case
	}
	log, err := r.Bridge.Log()
	t.Logf("the bridge's log, %v:\n%s", err, log)
}

// keep shows the bridge's log of a run with a fault.
func (r *rig) keep(t *testing.T) {
	t.Helper()
	log, err := r.Bridge.Log()
	if err != nil {
		t.Log(err)
	}
	const most = 30_000
	if len(log) > most {
		log = log[:most/2] + "\n...\n" + log[len(log)-most/2:]
	}
	t.Logf("the bridge's log:\n%s", log)
}

// wait waits for a time.
func wait(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
	}
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
