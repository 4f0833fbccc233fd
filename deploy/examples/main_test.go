package examples_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// rig is a bridge between a simulated API and a server with deploy/nats.conf.
type rig struct {
	t    *testing.T
	api  *sim.Server
	url  string
	mqtt int // port
	leaf int // port, 0 without leaf nodes
}

func newRig(t *testing.T) *rig { return newRigOf(t, "../nats.conf") }

// newRigOf is newRig with another configuration of the server.
func newRigOf(t *testing.T, config string) *rig {
	t.Helper()
	o := natsConf(t, config)
	r := &rig{t: t, url: startServer(t, o), mqtt: o.MQTT.Port, leaf: o.LeafNode.Port} // the server has put the ports there
	r.api = sim.New(sim.Options{IDs: []string{"dev 1"}, Record: 10})
	l, err := r.api.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r.show(0, "")
	r.bridge(l.URL)
	return r
}

// natsConf reads a configuration of the server, with free ports and passwords for its users.
func natsConf(t *testing.T, name string) *server.Options {
	t.Helper()
	for _, user := range []string{"BRIDGE", "QUERY", "SUBSCRIBER", "GATEWAY", "OPERATOR", "SYSTEM", "ARCHIVE", "EDGE", "RETAINER"} {
		t.Setenv(user+"_PASSWORD", "pass-of-"+user)
	}
	o, err := server.ProcessConfigFile(name)
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	if o.MQTT.Port != 0 {
		o.MQTT.Host, o.MQTT.Port = "127.0.0.1", server.RANDOM_PORT
	}
	if o.LeafNode.Port != 0 {
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	}
	o.StoreDir, o.NoSigs, o.NoLog, o.AuthTimeout, o.LeafNode.AuthTimeout = t.TempDir(), true, true, 60, 60
	return o
}

// startServer starts a server until the test ends, and returns its URL.
func startServer(t *testing.T, o *server.Options) string {
	t.Helper()
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return "nats://" + srv.Addr().String()
}

func (r *rig) bridge(api string) {
	r.t.Helper()
	for name, value := range map[string]string{
		"PLASPY_BASE_URL": api, "PLASPY_USERNAME": "sim", "PLASPY_API_KEY": "sim-key", "NATS_URL": r.url, "NATS_USER": "bridge",
		"NATS_PASSWORD": "pass-of-BRIDGE", "NATS_INBOX_PREFIX": "_INBOX_bridge", "NATS_QUERY_USER": "query", "NATS_QUERY_PASSWORD": "pass-of-QUERY",
		"BRIDGE_HTTP_ADDR": "127.0.0.1:0", "BRIDGE_POLL_INTERVAL": "100ms", "BRIDGE_SCHEDULE": "fixed",
	} {
		r.t.Setenv(name, value)
	}
	cfg, _, err := config.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := bridge.New(r.t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	natstest.Run(r.t, func(ctx context.Context) {
		if err := b.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
}

// show has the API show another position of the device, and more members.
func (r *rig) show(step int, more string) {
	at := time.Now().Add(time.Duration(step) * time.Second).UTC().Format(time.RFC3339)
	r.api.SetLocation("dev 1", fmt.Appendf(nil, `{"dateTime":%q,"latitude":4.7%d,"longitude":-74.1,"speed":12%s}`, at, step, more))
}

// user is the environment of one of the users of nats.conf.
func (r *rig) user(name string) []string {
	return append(os.Environ(), "NATS_URL="+r.url, "NATS_USER="+name, "NATS_PASSWORD=pass-of-"+strings.ToUpper(name), "HOME="+r.t.TempDir(), "NATS_INBOX_PREFIX=_INBOX_"+name)
}

// process is a client that runs.
type process struct {
	t     *testing.T
	lines chan string
	done  chan error
	err   strings.Builder
}

// start runs a client until it ends or the test does.
func (r *rig) start(user, dir, name string, args ...string) *process {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	p := &process{t: r.t, lines: make(chan string, 1000), done: make(chan error, 1)}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, r.user(user), &p.err
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case p.lines <- scanner.Text():
			default: // more than any test reads
			}
		}
		close(p.lines)
		p.done <- cmd.Wait()
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

// says waits for a line that holds all of these.
func (p *process) says(parts ...string) {
	p.t.Helper()
	var heard []string
	timeout := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("ended without printing %q but %q: %v %s", parts, heard, <-p.done, &p.err)
			}
			if containsAll(line, parts) {
				return
			}
			heard = append(heard, line)
		case <-timeout:
			p.t.Fatalf("printed %[2]q, want %[1]q", parts, heard)
		}
	}
}

func containsAll(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}

// ends waits until the client has ended, and well.
func (p *process) ends() {
	p.t.Helper()
	for range p.lines {
	}
	if err := <-p.done; err != nil {
		p.t.Errorf("%v: %s", err, &p.err)
	}
}

// build begins to compile the Go examples. The function that it returns waits for that, and returns their folder.
func build(t *testing.T) (built func(*testing.T) string) {
	t.Helper()
	dir, ended := t.TempDir(), make(chan struct{})
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", dir+string(filepath.Separator), "./latest", "./replay", "./durable", "./workers", "./alerts", "./gateway", "./traced")
	var out []byte
	var err error
	go func() {
		defer close(ended)
		out, err = cmd.CombinedOutput()
	}()
	t.Cleanup(func() { <-ended })
	return func(t *testing.T) string {
		t.Helper()
		if <-ended; err != nil {
			t.Fatalf("build the examples: %v\n%s", err, out)
		}
		return dir
	}
}

func port(n int) string { return strconv.Itoa(n) }
