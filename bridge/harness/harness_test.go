package harness_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/publisher/natstest/loopback"
)

var (
	proof = flag.Bool("proof", false, "run the tests that start whole processes; takes minutes")
	long  = flag.Duration("long", 0, "run TestLong, for so long")
	seed  = flag.Uint64("seed", 1, "of the faults of TestLong")
	scale = flag.Bool("scale", false, "run TestScale")
	kept  = flag.String("keep", "", "a folder for the whole logs of the bridges of a run that went wrong")
	race  = flag.Bool("race-bridge", false, "build the bridge with the race detector")
)

var (
	ports = &loopback.Ports{}
	dir   string // of the binaries, once they are built
	built = sync.OnceValues(func() (b process.Binaries, err error) {
		if dir, err = os.MkdirTemp("", "plaspy-bridge-harness-"); err != nil {
			return b, err
		}
		return process.Build(context.Background(), dir, *race)
	})
)

func TestMain(m *testing.M) { harness.Main(m, func() { _ = os.RemoveAll(dir) }) }

// needsProof skips a test of whole processes unless a flag selects it. go test ./... is
// quick and does not depend on how soon a process gets the CPU.
func needsProof(t *testing.T) {
	t.Helper()
	if !*proof && *long == 0 && !*scale && !*full && !*posts && *schedules == 0 {
		t.Skip("starts whole processes; run with -proof")
	}
}

// newRig makes a rig that is closed at the end of the test.
func newRig(t *testing.T, o harness.Options) *harness.Rig {
	t.Helper()
	needsProof(t)
	var err error
	if o.Binaries, err = built(); err != nil {
		t.Fatal(err)
	}
	o.Ports, o.Dir = ports, t.TempDir()
	if o.Seed == 0 {
		o.Seed = 1
	}
	r, err := harness.NewRig(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// length returns the length of a run.
func length(short, full time.Duration) time.Duration {
	if testing.Short() {
		return short
	}
	return full
}

// slow is how long a bridge may take on a busy machine, after the last fault, to be ready
// and to poll every device.
const slow = 30 * time.Second

// atMost is [harness.AtMost], but for -replicas, which runs one test at a time.
func atMost(d time.Duration) time.Duration {
	if *full {
		return d
	}
	return harness.AtMost(d)
}

// run starts a rig, injects a plan, and fails the test if the report has a fault.
func run(t *testing.T, o harness.Options, name string, p harness.Plan, d time.Duration, more ...func(*harness.Rig)) judge.Report {
	t.Helper()
	r := newRig(t, o)
	ctx := harness.Within(t, d+5*time.Minute)
	ok(t, r.Start(ctx))
	for _, f := range more {
		f(r)
	}
	for _, s := range p {
		t.Log(s)
	}
	ok(t, r.Inject(ctx, p, d))
	injected := time.Now()
	ok(t, r.Ready(ctx))
	ok(t, r.Polled(ctx, injected))
	limit := slow
	if d > time.Minute {
		// Many answers of 429 lower the rate to a hundredth. It rises again for more than
		// three minutes, in which the inbound stream has a backlog.
		limit = 4 * time.Minute
	}
	if took := time.Since(injected); took > limit {
		t.Errorf("it took %v to recover after the last fault", took)
		keep(t, r)
	}
	// The inbound messages of the faults take as long as the machine needs for so many.
	ok(t, r.Settle(ctx))
	report, err := r.Report(ctx, name, p)
	ok(t, err)
	t.Logf("\n%s", report.String())
	if err := report.Err(); err != nil {
		t.Errorf("%s with seed %d: %v", name, o.Seed, err)
		keep(t, r)
	}
	return report
}

// keep shows the beginning and the end of the bridges' logs of a run with a fault, and
// writes the whole logs to the folder of -keep.
func keep(t *testing.T, r *harness.Rig) {
	t.Helper()
	for _, b := range r.Bridges() {
		log, err := b.Log()
		if err != nil {
			t.Log(err)
		}
		if *kept != "" {
			ok(t, os.MkdirAll(*kept, 0o750))
			name := fmt.Sprintf("%s-bridge-%d.log", strings.ReplaceAll(t.Name(), "/", "-"), b.Index())
			ok(t, os.WriteFile(filepath.Join(*kept, name), []byte(log), 0o600))
		}
		const most = 20_000
		if len(log) > most {
			log = log[:most/2] + "\n...\n" + log[len(log)-most/2:]
		}
		t.Logf("the log of bridge %d:\n%s", b.Index(), log)
	}
}
