package harness_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fleet"
)

// TestBrokerComesLate starts the bridge without a broker.
func TestBrokerComesLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 5})
	ctx := harness.Within(t, 3*time.Minute)
	ok(t, r.Bridge.Start(ctx))
	ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool {
		return !h.Ready && strings.Contains(h.Reasons["nats"], "not connected to NATS") && strings.Contains(h.Reasons["streams"], "not connected")
	}))
	ok(t, r.Broker.Start(ctx))
	ok(t, r.Bridge.Ready(ctx))
	added(ctx, t, r, 5)
	ok(t, r.Settle(ctx))
	report, err := r.Report(ctx, "broker comes late", nil)
	ok(t, err)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

// added waits until the stream has the device events of a number of devices. A bridge that
// is ready publishes them along with the locations, and one that stops leaves the rest to
// its next start.
func added(ctx context.Context, t *testing.T, r *harness.Rig, devices int) {
	t.Helper()
	began := time.Now()
	for n := 0; n < devices; {
		st, err := r.Broker.JetStream().Stream(ctx, "PLASPY_EVENTS")
		ok(t, err)
		info, err := st.Info(ctx, jetstream.WithSubjectFilter("plaspy.device.*"))
		ok(t, err)
		if n = len(info.State.Subjects); n < devices {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%d of %d devices were added: %v", n, devices, context.Cause(ctx))
			}
		}
	}
	t.Logf("devices were added %v after the bridge was ready", time.Since(began).Round(time.Millisecond))
}

// TestWrongKey starts the bridge with a wrong key and then corrects the key's file.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	ok(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
	r := newRig(t, harness.Options{Devices: 5, Env: []string{"PLASPY_API_KEY=", "PLASPY_API_KEY_FILE=" + file}})
	ctx := harness.Within(t, 3*time.Minute)
	ok(t, r.Broker.Start(ctx))
	ok(t, r.Bridge.Start(ctx))
	ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool {
		return !h.Ready && strings.Contains(h.Reasons["token"], "the API refuses the key")
	}))
	health := exec.CommandContext(ctx, r.Bridge.Binary(), "health")
	health.Env = r.Bridge.Env()
	if out, err := health.CombinedOutput(); health.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "token: ") {
		t.Errorf("health: %v: %s, want status 1 and the reason", err, out)
	}
	ok(t, os.WriteFile(file, []byte(harness.APIKey), 0o600))
	ok(t, r.Bridge.Ready(ctx))
	ok(t, r.Settle(ctx))
}

// TestExitStatus checks the exit status of a bridge that refuses to start.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		env    func(r *harness.Rig) []string
		status int
		log    []string
	}{
		{"wrong configuration", func(*harness.Rig) []string { return []string{"PLASPY_USERNAME=", "BRIDGE_WORKERS=-3"} }, 2,
			[]string{"PLASPY_USERNAME is not set", "BRIDGE_WORKERS"}},
		{"address in use", func(r *harness.Rig) []string {
			return []string{"BRIDGE_HTTP_ADDR=" + strings.TrimPrefix(r.Broker.URL(), "nats://")}
		}, 1,
			[]string{"BRIDGE_HTTP_ADDR", "address already in use"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, harness.Options{Devices: 1})
			ctx := harness.Within(t, 3*time.Minute)
			ok(t, r.Broker.Start(ctx))
			r.Bridge.Set(test.env(r)...)
			ok(t, r.Bridge.Start(ctx))
			life, err := r.Bridge.Wait(ctx)
			ok(t, err)
			if life.Status != test.status {
				t.Errorf("status %d, want %d", life.Status, test.status)
			}
			log, err := r.Bridge.Log()
			ok(t, err)
			for _, want := range test.log {
				if !strings.Contains(log, want) {
					t.Errorf("log does not have %q:\n%s", want, log)
				}
			}
		})
	}
}

// TestStop stops a busy bridge, which has to store all locations that the API returned
// within the time limit.
func TestStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 200, Profile: fleet.Percent(100)})
	ctx := harness.Within(t, 3*time.Minute)
	ok(t, r.Start(ctx))
	ok(t, r.Polled(ctx, time.Now()))
	begun := time.Now()
	life, err := r.Bridge.Stop(ctx)
	ok(t, err)
	if life.Status != 0 {
		t.Errorf("status %d, want 0", life.Status)
	}
	if took := life.To.Sub(begun); took > atMost(5*time.Second) {
		t.Errorf("took %v to stop with nothing in the way", took)
	}
	report, err := r.Report(ctx, "stopped", nil)
	ok(t, err)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if report.Published != report.Shown {
		t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
	}
}
