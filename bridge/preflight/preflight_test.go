package preflight_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/config/configtest"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/preflight"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/embedded"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

const (
	apiKey   = "s3cret-api-key"
	password = "s3cret-password"
)

// rig is the API and the NATS server that a bridge would run between.
type rig struct {
	*testing.T
	sim       *sim.Server
	variables map[string]string // the bridge's environment
}

// newRig starts a simulated API and points the variables to it and to no NATS
// server.
func newRig(t *testing.T, o sim.Options) *rig {
	t.Helper()
	o.UserName, o.APIKey = "operator", apiKey
	if o.Devices == 0 {
		o.Devices = 3
	}
	r := &rig{t, sim.New(o), map[string]string{}}
	l, err := r.sim.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r.env("PLASPY_BASE_URL", l.URL, "PLASPY_USERNAME", "operator", "PLASPY_API_KEY", apiKey, "PLASPY_TIMEOUT", "60s",
		"BRIDGE_HTTP_ADDR", "127.0.0.1:0", "BRIDGE_EMBEDDED_ADDR", "127.0.0.1:0", "BRIDGE_DATA_DIR", filepath.Join(t.TempDir(), "data"))
	return r
}

// env sets variables, name and value in turn.
func (r *rig) env(env ...string) {
	for i := 0; i < len(env); i += 2 {
		r.variables[env[i]] = env[i+1]
		if env[i] == "NATS_URL" || env[i] == "BRIDGE_EMBEDDED_CONFIG" { // another address would be doubtful
			r.variables["BRIDGE_EMBEDDED_ADDR"] = "127.0.0.1:4222"
		}
	}
}

// check runs all checks and returns their lines.
func (r *rig) check() (string, preflight.Counts) {
	r.Helper()
	cfg, warnings, err := configtest.Load(r, r.variables)
	if err != nil {
		r.Fatal(err)
	}
	var b strings.Builder
	n := preflight.Run(r.Context(), cfg, warnings, "test", func(f preflight.Finding) { fmt.Fprintln(&b, f) })
	if strings.Contains(b.String(), "s3cret") {
		r.Errorf("a secret shows:\n%s", &b)
	}
	return b.String(), n
}

// want fails the test unless the lines have a match for each pattern, and the given
// numbers of warnings and failures. It does not count the warning of a power failure,
// which the embedded server has by default.
func (r *rig) want(warn, fail int, patterns ...string) {
	r.Helper()
	lines, n := r.check()
	n.Warn -= strings.Count(lines, "warn power failure: ")
	if n.Warn != warn || n.Fail != fail {
		r.Errorf("%d warnings and %d failures, want %d and %d:\n%s", n.Warn, n.Fail, warn, fail, lines)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)^` + p).MatchString(lines) {
			r.Errorf("no line matches %s:\n%s", p, lines)
		}
	}
}

// longer returns the lines of the first check that suits, with longer and longer limits of
// a request. A check that waits for the limit takes seconds with the first of them, and
// beside busy processes that one may be too short for a request that has an answer.
func (r *rig) longer(suits func(lines string, n preflight.Counts) bool) (lines string, n preflight.Counts) {
	r.Helper()
	for _, limit := range []string{"500ms", "2s", "8s", "30s"} {
		r.env("PLASPY_TIMEOUT", limit)
		if lines, n = r.check(); suits(lines, n) {
			break
		}
	}
	return lines, n
}

// broker starts a NATS server that gives its user bridge the permissions, and points
// the environment to it.
func (r *rig) broker(p *server.Permissions, set ...func(*server.Options)) *natstest.Server {
	r.Helper()
	s := natstest.Start(r.T, append([]func(*server.Options){natstest.Listen, func(o *server.Options) {
		o.Users = []*server.User{{Username: "bridge", Password: password, Permissions: p}, {Username: "admin", Password: password}}
	}}, set...)...)
	r.env("NATS_URL", s.ClientURL(), "NATS_USER", "bridge", "NATS_PASSWORD", password)
	return s
}

// admin connects a user with all permissions.
func (r *rig) admin(s *natstest.Server) (*nats.Conn, jetstream.JetStream) {
	r.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("admin", password), nats.Timeout(time.Minute))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(nc.Close)
	js := natstest.JetStream(r, nc)
	return nc, js
}

func TestAPI(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		sim        sim.Options
		env        []string
		fault      *fault.Rule
		warn, fail int
		want       string
	}{
		{name: "good", want: `ok   device list: 3 active devices$`},
		{name: "budget", want: `ok   budget: 600 requests a minute poll 3 devices once in 1s`},
		{name: "budget too small", env: []string{"PLASPY_RATE_LIMIT", "2"}, warn: 1, want: `warn budget: 2 requests a minute take 1m30s to poll 3 devices once.*: raise PLASPY_RATE_LIMIT`},
		{name: "wrong key", env: []string{"PLASPY_API_KEY", "s3cret-old"}, fail: 1, want: `FAIL token: key refused.*: check PLASPY_USERNAME and the API key`},
		{name: "API down", env: []string{"PLASPY_BASE_URL", "http://127.0.0.1:1"}, fail: 1, want: `FAIL token: .*connection refused: check PLASPY_BASE_URL, the network`},
		{name: "API hangs", env: []string{"PLASPY_TIMEOUT", "150ms"}, fault: &fault.Rule{Kind: fault.Hang}, fail: 1, want: `FAIL token: `},
		{name: "not the API", fault: &fault.Rule{Kind: fault.HTML}, fail: 1, want: `FAIL token: .*HTML.*: check PLASPY_BASE_URL: the server there`},
		{name: "API overloaded", fault: &fault.Rule{Kind: fault.Status, Status: 503}, fail: 1, want: `FAIL token: .*503.*: check the state of the API`},
		{name: "token refused", fault: &fault.Rule{Kind: fault.Unauthorized, Endpoint: "devices"}, fail: 1, want: `FAIL device list: .*: the API grants a token and then rejects it`},
		{name: "no permission", fault: &fault.Rule{Kind: fault.Status, Status: 403, Endpoint: "devices"}, fail: 1, want: `FAIL device list: .*403.*: allow this user to read devices`},
		{name: "no devices", fault: &fault.Rule{Kind: fault.EmptyList}, warn: 1, want: `warn device list: no active device`},
		{name: "all expired", fault: &fault.Rule{Kind: fault.Expired, Device: "*"}, warn: 1, want: `warn device list: no active device among 3 listed`},
		{name: "API's clock ahead", sim: sim.Options{Skew: 7 * time.Minute}, warn: 1, want: `warn clock: the local clock is (7m0s|6m\d\ds) behind the API's: synchronize the clocks`},
		{name: "API's clock behind", sim: sim.Options{Skew: -time.Hour}, warn: 1, want: `warn clock: the local clock is (1h0m0s|59m\d\ds) ahead of the API's`},
		{name: "groups", env: []string{"BRIDGE_GROUPS", "group1,Van fleet,Boats"}, warn: 1, want: `warn groups: entry 3 of BRIDGE_GROUPS is neither the id nor the name of one of 4 groups: correct it`},
		{name: "some chosen", env: []string{"BRIDGE_DEVICES", "device0001,device0002"}, want: `ok +selection: 2 of 3 active devices are selected`},
		{name: "none chosen", env: []string{"BRIDGE_DEVICES_EXCLUDE", "*"}, fail: 1, want: `FAIL selection: none of 3 active devices is selected`},
		{name: "none matched", env: []string{"BRIDGE_DEVICES", "truck*"}, warn: 1, fail: 1, want: `FAIL selection: none of 3 active devices is selected`},
		{name: "a pattern without a match", env: []string{"BRIDGE_DEVICES", "device*,truck*"}, warn: 1, want: `warn selection: entry 2 of BRIDGE_DEVICES matches no device`},
		{name: "no such group", env: []string{"BRIDGE_GROUPS", "Boats"}, warn: 1, fail: 1, want: `FAIL selection: none of 3`},
		{name: "misspelt variable", env: []string{"BRIDGE_WORKRES", "1"}, warn: 1, want: `warn configuration: BRIDGE_WORKRES .*did you mean BRIDGE_WORKERS`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.sim)
			r.env(tt.env...)
			if tt.fault != nil {
				r.sim.Fault(*tt.fault)
			}
			start := time.Now()
			r.want(tt.warn, tt.fail, tt.want)
			if d := time.Since(start); d > time.Minute {
				t.Errorf("took %s", d)
			}
			if n := r.sim.Counts().Requests; n > 4 {
				t.Errorf("%d requests for one check", n)
			}
		})
	}
}

// TestCertificate: a certificate that is not trusted has a remedy of its own.
func TestCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	api := httptest.NewUnstartedServer(http.NotFoundHandler())
	api.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	api.StartTLS()
	t.Cleanup(api.Close)
	r.env("PLASPY_BASE_URL", api.URL)
	r.want(0, 1, `FAIL token: .*certificate.*: correct the host in PLASPY_BASE_URL .*SSL_CERT_FILE$`)
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(apiKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env("PLASPY_API_KEY", "", "PLASPY_API_KEY_FILE", file)
	r.want(0, 0, `ok   key file: readable, mode -rw-------`, `ok   token: granted, valid for another (1h0m0s|59m\d+s)`)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	r.want(1, 0, `warn key file: every user of this machine can read it \(mode -rw-r--r--\): chmod`)
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	t.Run("nothing there yet", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.want(0, 0, `ok   embedded store: .*/data does not exist yet and can be created`, `ok   embedded NATS: 127.0.0.1:\d+ is free`, `ok   disk: \d+ MiB free`, `ok   BRIDGE_HTTP_ADDR: 127`)
		if _, err := os.Stat(r.variables["BRIDGE_DATA_DIR"]); !os.IsNotExist(err) {
			t.Errorf("the check created the folder: %v", err)
		}
	})
	t.Run("ports taken", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		for _, variable := range []string{"BRIDGE_HTTP_ADDR", "BRIDGE_EMBEDDED_ADDR"} {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			r.env(variable, l.Addr().String())
		}
		wanted := regexp.MustCompile(`(?m)^FAIL BRIDGE_HTTP_ADDR: another program listens(?s:.*)^FAIL embedded NATS: another program listens.*: set NATS_URL`)
		// The listener there never answers, so the check waits for the limit.
		suits := func(lines string, n preflight.Counts) bool {
			return n.Warn == strings.Count(lines, "warn power failure: ") && n.Fail == 2 && wanted.MatchString(lines)
		}
		if lines, n := r.longer(suits); !suits(lines, n) {
			t.Errorf("%d warnings and %d failures, want 0 and 2:\n%s", n.Warn, n.Fail, lines)
		}
	})
	t.Run("a file where the folder would be", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.env("BRIDGE_DATA_DIR", filepath.Join(file, "data"))
		r.want(0, 1, `FAIL embedded store: .*: make the folder writable`)
	})
	t.Run("configuration file", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		file := filepath.Join(t.TempDir(), "nats.conf")
		if err := os.WriteFile(file, []byte("listen: 127.0.0.1:"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.env("BRIDGE_EMBEDDED_CONFIG", file)
		r.want(0, 1, `FAIL BRIDGE_EMBEDDED_CONFIG: `)
	})
}

// TestBesideABridge checks while a bridge holds the store and serves its health.
func TestBesideABridge(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	log := slog.New(slog.DiscardHandler)
	s, err := embedded.Start(embedded.Options{Addr: r.variables["BRIDGE_EMBEDDED_ADDR"], Dir: r.variables["BRIDGE_DATA_DIR"]}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	listener, err := ops.Listen(t.Context(), r.variables["BRIDGE_HTTP_ADDR"])
	if err != nil {
		t.Fatal(err)
	}
	r.env("BRIDGE_HTTP_ADDR", listener.Addr().String())
	health := ops.NewHealth()
	health.Report("token", ops.Up())
	h := ops.New(listener, ops.Options{Health: health, Gatherer: ops.NewRegistry(health), Log: log})
	served := make(chan error, 1)
	go func() { served <- h.Serve() }()
	defer func() {
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	r.want(0, 0, `ok   embedded store: .* is in use by the bridge on 127.*, which is ready`, `ok   BRIDGE_HTTP_ADDR: the running bridge listens on 127`)
	health.Report("token", ops.Down("the API refuses the key"))
	r.want(0, 1, `FAIL embedded store: .* and /readyz on .* reports: token: the API refuses the key: solve that problem`)
}

func TestNATS(t *testing.T) {
	t.Parallel()
	t.Run("good, nothing there", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		s := r.broker(nil)
		_, js := r.admin(s)
		r.want(0, 0, `ok   NATS: connected to nats://127.0.0.1:\d+, nats-server 2\.`, `ok   JetStream: enabled`,
			`ok   stream PLASPY_EVENTS: does not exist yet, the bridge creates it`, `ok   permissions: the bridge has all permissions`)
		for name := range js.StreamNames(t.Context()).Name() {
			t.Errorf("the check created stream %s", name)
		}
	})
	t.Run("good, streams there", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		_, js := r.admin(r.broker(nil))
		ensure(t, js, nil)
		r.want(0, 0, `ok   stream PLASPY_EVENTS: exists, 0 messages`, `ok   stream KV_plaspy_last: exists`, `ok   stream PLASPY_DLQ: exists`, `ok   clock: agrees with the NATS server's`)
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.env("NATS_URL", "127.0.0.1:1", "NATS_TOKEN", "s3cret-token")
		start := time.Now()
		r.want(0, 1, `FAIL NATS: not connected to NATS: .*refused: check NATS_URL`)
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %s", d)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.broker(nil)
		r.env("NATS_PASSWORD", "s3cret-wrong")
		r.want(0, 1, `FAIL NATS: .*Authorization Violation: check NATS_CREDS`)
	})
	t.Run("login in NATS_URL", func(t *testing.T) {
		r := newRig(t, sim.Options{})
		for user, set := range map[*url.Userinfo]func(*server.Options){
			url.User("s3cret-token"):                  func(o *server.Options) { o.Users, o.Authorization = nil, "s3cret-token" },
			url.UserPassword("admin", password):       func(*server.Options) {},
			url.UserPassword("s3cret-name", password): func(o *server.Options) { o.Users[1].Username = "s3cret-name" },
		} {
			s := r.broker(nil, set)
			r.env("NATS_URL", (&url.URL{Scheme: "nats", User: user, Host: s.Addr().String()}).String(), "NATS_USER", "", "NATS_PASSWORD", "")
			r.want(0, 0, `ok   NATS: connected to nats://127\.0\.0\.1:\d+, nats-server 2\.`)
		}
	})
	t.Run("wrong user of the query service", func(t *testing.T) {
		r := newRig(t, sim.Options{})
		r.broker(nil)
		r.env("NATS_QUERY_USER", "query", "NATS_QUERY_PASSWORD", "s3cret-wrong")
		r.want(0, 1, `FAIL NATS: .*Authorization Violation: check NATS_QUERY_CREDS, NATS_QUERY_NKEY, or NATS_QUERY_USER and NATS_QUERY_PASSWORD, as`)
	})
	t.Run("no JetStream", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.broker(nil, func(o *server.Options) { o.JetStream = false })
		r.want(0, 1, `FAIL JetStream: not enabled on this server: enable it`)
	})
	t.Run("replicas without a cluster", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.broker(nil)
		r.env("BRIDGE_STREAM_REPLICAS", "3", "BRIDGE_INBOUND", "false")
		r.want(0, 3, `FAIL stream PLASPY_EVENTS: .*3 replicas: the server is in no cluster: set BRIDGE_STREAM_REPLICAS`)
	})
}

// ensure makes the bridge's streams, changed by change.
func ensure(t *testing.T, js jetstream.JetStream, change func(*jetstream.StreamConfig)) {
	t.Helper()
	want := publisher.Subjects("plaspy").Streams(publisher.StreamOptions{Retention: 168 * time.Hour, Inbound: true})
	if change != nil {
		change(&want[0])
		want = want[:1]
	}
	if _, err := publisher.EnsureStreams(t.Context(), js, want); err != nil {
		t.Fatal(err)
	}
}

// TestOtherStreams checks an events stream that exists with other settings.
func TestOtherStreams(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		change     func(*jetstream.StreamConfig)
		warn, fail int
		want       string
	}{
		{"retention", func(c *jetstream.StreamConfig) { c.MaxAge = 24 * time.Hour }, 1, 0, `warn stream PLASPY_EVENTS: max_age is 24h0m0s, the bridge would set 168h0m0s: the bridge uses it as it is`},
		{"duplicate window", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, 1, 0, `warn stream PLASPY_EVENTS: duplicate_window is 1s`},
		{"memory", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, 1, 0, `warn stream PLASPY_EVENTS: storage is Memory.*a restart of the server empties it`},
		{"subjects missing", func(c *jetstream.StreamConfig) { c.Subjects = []string{"plaspy.location.*"} }, 0, 1, `FAIL stream PLASPY_EVENTS: its subjects are plaspy.location.\*, without plaspy.alert.\*.\*: add`},
		{"more subjects", func(c *jetstream.StreamConfig) {
			c.Subjects = []string{"plaspy.location.*", "plaspy.alert.>", "plaspy.device.>", "more"}
		}, 1, 0, `warn stream PLASPY_EVENTS: subjects is`},
		{"no acks", func(c *jetstream.StreamConfig) { c.NoAck = true }, 0, 1, `FAIL stream PLASPY_EVENTS: sends no acknowledgements`},
		{"in another stream", func(c *jetstream.StreamConfig) { c.Name = "MINE" }, 0, 1, `FAIL stream PLASPY_EVENTS: is missing, and cannot be created: stream MINE already has the subject plaspy\.`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			_, js := r.admin(r.broker(nil))
			ensure(t, js, tt.change)
			r.want(tt.warn, tt.fail, tt.want)
		})
	}
}
