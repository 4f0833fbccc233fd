package main

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
	"plaspy-bridge/publisher/natstest/loopback"
)

// users are the users of deploy/nats.conf, which reads their passwords from the
// environment.
var users = []string{"BRIDGE", "QUERY", "SUBSCRIBER", "GATEWAY", "OPERATOR", "SYSTEM"}

func TestMain(m *testing.M) {
	if os.Getenv(clitest.AsProgram) != "" {
		main()
	}
	for _, user := range users {
		if err := os.Setenv(user+"_PASSWORD", "pass-of-"+user); err != nil {
			panic(err)
		}
	}
	natstest.Main(m)
}

// process is a bridge that runs as a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	http   string // root of its HTTP side
	broker string // address of its NATS server
	done   chan error
}

// ports are those of the programs. The system gives none of them to a connection before
// the program listens.
var ports loopback.Ports

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := ports.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// simulated serves a simulated API, and returns the environment of a program that uses
// it, with more variables.
func simulated(t *testing.T, api *sim.Server, more ...string) []string {
	t.Helper()
	return append([]string{
		clitest.AsProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
		"PLASPY_BASE_URL=" + serve(t, api), "PLASPY_USERNAME=sim", "PLASPY_API_KEY=sim-key",
	}, more...)
}

// simulatedHere serves a simulated API, and makes the test's own environment that of a
// bridge that uses it, with a store and ports of its own and more variables, name and
// value in turn.
func simulatedHere(t *testing.T, api *sim.Server, more ...string) {
	t.Helper()
	clitest.ClearEnv(t, append([]string{
		"PLASPY_BASE_URL", serve(t, api), "PLASPY_USERNAME", "sim", "PLASPY_API_KEY", "sim-key",
		"BRIDGE_DATA_DIR", t.TempDir(), "BRIDGE_EMBEDDED_ADDR", "127.0.0.1:0", "BRIDGE_HTTP_ADDR", "127.0.0.1:0",
	}, more...)...)
}

// serve serves a simulated API until the end of the test.
func serve(t *testing.T, api *sim.Server) (url string) {
	t.Helper()
	l, err := api.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.URL
}

// startProcess starts `plaspy-bridge run` against a simulated fleet, with its log
// going to stderr.
func startProcess(t *testing.T, api *sim.Server, stderr *os.File, env ...string) *process {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("wants signals")
	}
	addr, broker := freeAddr(t), freeAddr(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "run")
	cmd.Env = append(simulated(t, api, "PLASPY_RATE_LIMIT=0", "BRIDGE_POLL_INTERVAL=100ms", "BRIDGE_SCHEDULE=fixed", "BRIDGE_LOG_LEVEL=debug",
		"BRIDGE_DATA_DIR="+t.TempDir(), "BRIDGE_EMBEDDED_ADDR="+broker, "BRIDGE_HTTP_ADDR="+addr), env...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	p := start(t, cmd, addr)
	p.broker = broker
	return p
}

// start starts a bridge that serves HTTP at addr.
func start(t *testing.T, cmd *exec.Cmd, addr string) *process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, http: "http://" + addr, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return p
}

// signal sends a signal and returns the exit status and how long the end took.
func (p *process) signal(s os.Signal) (status int, took time.Duration) {
	p.t.Helper()
	begun := time.Now()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode(), time.Since(begun)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		return 0, time.Since(begun)
	case <-time.After(time.Minute):
		p.t.Fatal("the process does not end")
		return 0, 0
	}
}

// await waits until ok holds, while the process runs.
func (p *process) await(what string, ok func() bool) {
	p.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case err := <-p.done:
			p.t.Fatalf("%s: the process ended: %v", what, err)
		case <-limit:
			p.t.Fatalf("%s: not within two minutes", what)
		}
	}
}

// ready waits until the process is ready.
func (p *process) ready() {
	p.t.Helper()
	p.await("ready", func() bool {
		body, err := clitest.Fetch(p.t.Context(), p.http+"/readyz")
		return err == nil && strings.Contains(body, `"ready": true`)
	})
}

// polls waits for that many more polls.
func (p *process) polls(s *sim.Server, more int64) {
	p.t.Helper()
	count := func() int64 { return s.Counts().Answers["lastLocation"][http.StatusOK] }
	begun := count()
	p.await("polls", func() bool { return count() >= begun+more })
}

// fullPipe returns a pipe that has no room for another byte.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w = pipe(t)
	filler := bytes.Repeat([]byte{'\n'}, 4096)
	for {
		if err := w.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(filler); errors.Is(err, os.ErrDeadlineExceeded) {
			if len(filler) == 1 {
				return r, w
			}
			filler = filler[:1]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func newFleet() *sim.Server { return fleetOf(10) }

func fleetOf(devices int) *sim.Server {
	return sim.New(sim.Options{Devices: devices, Seed: 1, Profile: fleet.EverySecond})
}

func logFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// A reader of the log that stalls holds up neither the start, nor the polls, nor
// the stop.
func TestLogReaderStalls(t *testing.T) {
	t.Parallel()
	fleet := fleetOf(50)
	_, w := fullPipe(t)
	p := startProcess(t, fleet, w)
	p.polls(fleet, 150)
	p.ready()
	if status, took := p.signal(syscall.SIGTERM); status != 0 || took > 15*time.Second {
		t.Errorf("status %d after %v", status, took)
	}
}

// A reader of the log that goes away costs the lines.
func TestLogReaderGoesAway(t *testing.T) {
	t.Parallel()
	fleet := fleetOf(50)
	r, w := pipe(t)
	p := startProcess(t, fleet, w)
	_ = w.Close() // the child has its own
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	p.polls(fleet, 150)
	p.await("dropped lines", func() bool {
		metrics, err := clitest.Fetch(t.Context(), p.http+"/metrics")
		return err == nil && strings.Contains(metrics, "plaspy_bridge_log_lines_dropped_total ") &&
			!strings.Contains(metrics, "plaspy_bridge_log_lines_dropped_total 0\n")
	})
	if status, took := p.signal(syscall.SIGTERM); status != 0 || took > 15*time.Second {
		t.Errorf("status %d after %v", status, took)
	}
}

// A terminal that hangs up stops the bridge as gracefully as SIGTERM does.
func TestHangUpIsAGracefulStop(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			if signal.Ignored(s) {
				t.Skip("these tests run where the signal is ignored, as below nohup, and so does every program that they start")
			}
			fleet := newFleet()
			log := logFile(t)
			p := startProcess(t, fleet, log)
			p.polls(fleet, 50)
			status, took := p.signal(s)
			text, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			if status != 0 || took > 15*time.Second || !strings.Contains(string(text), `"msg":"stopped"`) {
				t.Errorf("status %d after %v, log:\n%s", status, took, text)
			}
		})
	}
}

// A wrong configuration ends with status 2, also if the log has no room.
func TestWrongConfigurationWithAFullPipe(t *testing.T) {
	t.Parallel()
	_, w := fullPipe(t)
	p := startProcess(t, newFleet(), w, "BRIDGE_WORKERS=0")
	err := <-p.done
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != cli.ExitWrong {
		t.Errorf("got %v", err)
	}
}

// inBucket waits until the server has copied the devices' locations to the bucket of last
// locations.
func inBucket(t *testing.T, broker string, ids []string) {
	t.Helper()
	nc, err := nats.Connect("nats://"+broker, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js := natstest.JetStream(t, nc)
	natstest.Eventually(t, "the locations are in the bucket", func() bool {
		kv, err := js.KeyValue(t.Context(), "plaspy_last")
		for i := 0; err == nil && i < len(ids); i++ {
			_, err = kv.Get(t.Context(), publisher.Encode(ids[i]))
		}
		return err == nil
	})
}

// The commands for the running bridge need nothing but its addresses.
func TestCommandsBesideARunningBridge(t *testing.T) {
	t.Parallel()
	api := sim.New(sim.Options{Devices: 10, Seed: 1, Profile: fleet.Unchanged})
	log := logFile(t)
	p := startProcess(t, api, log)
	p.ready()
	p.polls(api, 30)
	env := []string{"BRIDGE_HTTP_ADDR=" + strings.TrimPrefix(p.http, "http://"), "NATS_URL=nats://" + p.broker}
	ids := api.IDs()
	inBucket(t, p.broker, ids[:2])
	run := func(name string, status int, args []string, want ...string) {
		t.Helper()
		got, stdout, stderr := clitest.Process(t, env, args...)
		if got != status {
			t.Errorf("%s: status %d, want %d:\n%s%s", name, got, status, stdout, stderr)
		}
		for _, part := range want {
			if !strings.Contains(stdout+stderr, part) {
				t.Errorf("%s: no %q in:\n%s%s", name, part, stdout, stderr)
			}
		}
	}
	run("health", 0, []string{"health"}, "ready")
	run("status", 0, []string{"status"}, ": ready", "token", "budget", "replicas  1, which poll 10 devices; this one polls 10", "backlog", "store")
	run("why", 0, []string{"why", ids[0]}, `"decisions": [`)
	run("why of a stranger", 1, []string{"why", "nosuch"}, "the query service answers 404")
	run("forget without a device", 2, []string{"forget"})
	run("undo of a device that was not forgotten", 1, []string{"forget", "--undo", ids[0]}, "not forgotten")
	var forgetting sync.WaitGroup // side by side, because each waits for polls in flight
	for i, args := range [][]string{{"forget", ids[0]}, {"forget", "--inbound", ids[1]}} {
		forgetting.Go(func() {
			run(strings.Join(args, " "), 0, args, "removed from PLASPY_EVENTS", "1 removed from KV_plaspy_last", ids[i]+" is forgotten")
		})
	}
	forgetting.Wait()
	run("list", 0, []string{"forget", "--list"}, ids[0], ids[1])
	run("undo", 0, []string{"forget", "--undo", ids[0]}, ids[0]+" is published again")
	// The bridge's own NATS user may not ask, and a bridge elsewhere serves no HTTP here.
	for _, without := range []string{"NATS_URL=nats://127.0.0.1:1", "BRIDGE_HTTP_ADDR="} {
		status, stdout, stderr := clitest.Process(t, append(slices.Clone(env), without), "why", ids[2])
		if status != 0 || !strings.Contains(stdout, `"decisions": [`) {
			t.Errorf("why with %s: status %d:\n%s%s", without, status, stdout, stderr)
		}
	}
	if status, _ := p.signal(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	if status, stdout, stderr := clitest.Process(t, env, "status"); status != cli.ExitFailed || !strings.Contains(stderr, "refused") {
		t.Errorf("without a bridge: %d %s%s", status, stdout, stderr)
	}
}
