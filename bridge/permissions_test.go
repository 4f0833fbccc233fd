package bridge_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/config/configtest"
	"plaspy-bridge/bridge/preflight"
	"plaspy-bridge/bridge/sim"
)

// spare are the permissions of the bridge's user in deploy/nats.conf that this
// test's configuration does not need: a prefix that is not its own, the Reply-To
// of gateways, the query service without a user of its own, and what makes check
// say more.
var spare = []string{"publish _INBOX.>", "publish _INBOX_gateway.>", "publish _R_.>", "publish $JS.API.STREAM.NAMES", "subscribe _INBOX.>", "subscribe plaspy.api.>", "subscribe $SRV.>"}

// TestPermissionsOneByOne runs check and the bridge as the users of
// deploy/nats.conf, and again with each single permission taken away. What the
// server then refuses to the bridge, check has to report, and a permission that
// check does not miss has to be one of the spare ones.
//
// It takes some permissions only; PERMISSIONS=all takes every one, in less than a
// minute.
func TestPermissionsOneByOne(t *testing.T) {
	all := os.Getenv("PERMISSIONS") == "all"
	_, list := permitted(t, "")
	if len(list) < 40 {
		t.Fatalf("only %d permissions found", len(list))
	}
	for i, taken := range append([]string{""}, list...) {
		if taken != "" && !all && i%13 != 1 {
			continue
		}
		o, _ := permitted(t, taken)
		t.Run(cmp.Or(taken, "every permission"), func(t *testing.T) {
			t.Parallel()
			reported := checkWith(t, o)
			refused := runWith(t, o)
			switch {
			case taken == "" && (len(reported) > 0 || refused != ""):
				t.Errorf("with every permission: check reports %v, the server refuses %s", reported, refused)
			case refused != "" && len(reported) == 0:
				t.Errorf("the server refuses %s, and check reports nothing", refused)
			case taken != "" && len(reported) == 0 && !slices.Contains(spare, taken):
				t.Errorf("check does not miss it: either a package does not list it as a need, or nats.conf has too much")
			case slices.Contains(spare, taken) && refused != "":
				t.Errorf("it is called spare, and the server refuses %s", refused)
			}
		})
	}
}

// permitted reads deploy/nats.conf and takes one permission of the user bridge
// away, which is written as in list.
func permitted(t *testing.T, taken string) (o *server.Options, list []string) {
	t.Helper()
	o = deployed(t)
	for _, u := range o.Users {
		if u.Username != "bridge" {
			continue
		}
		for verb, p := range map[string]*server.SubjectPermission{"publish ": u.Permissions.Publish, "subscribe ": u.Permissions.Subscribe} {
			for _, subject := range p.Allow {
				list = append(list, verb+subject)
			}
			p.Allow = slices.DeleteFunc(p.Allow, func(subject string) bool { return verb+subject == taken })
		}
	}
	slices.Sort(list)
	o.Host, o.Port, o.HTTPPort, o.MQTT = "127.0.0.1", server.RANDOM_PORT, 0, server.MQTTOpts{}
	o.NoSigs, o.NoLog = true, true
	return o, list
}

// started starts a server and a simulated API, and returns the configuration for them.
func started(t *testing.T, o *server.Options) (*server.Server, config.Config) {
	t.Helper()
	o.StoreDir = t.TempDir()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	api, err := sim.New(sim.Options{Devices: 2}).Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	cfg, _, err := configtest.Load(t, map[string]string{
		"PLASPY_BASE_URL": api.URL, "PLASPY_USERNAME": "sim", "PLASPY_API_KEY": "sim-key", "PLASPY_TIMEOUT": "2s", "NATS_URL": s.ClientURL(), "NATS_USER": "bridge",
		"NATS_PASSWORD": "pass-of-BRIDGE", "NATS_INBOX_PREFIX": "_INBOX_bridge", "NATS_QUERY_USER": "query", "NATS_QUERY_PASSWORD": "pass-of-QUERY",
		"BRIDGE_HTTP_ADDR": "127.0.0.1:0", "BRIDGE_POLL_INTERVAL": "100ms", "BRIDGE_SCHEDULE": "fixed", "BRIDGE_SILENT_AFTER": "1h", "BRIDGE_SHUTDOWN_TIMEOUT": "2s",
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg
}

// checkWith returns what check says that is not ok.
func checkWith(t *testing.T, o *server.Options) (reported []string) {
	t.Helper()
	copied := *o
	_, cfg := started(t, &copied)
	preflight.Run(t.Context(), cfg, nil, "plaspy-bridge/test", func(f preflight.Finding) {
		if f.Level != preflight.OK && (strings.Contains(f.String(), "allow this user") || f.What == "permissions") {
			reported = append(reported, f.String())
		}
	})
	return reported
}

// violations is a log of which only what the server refuses is kept.
type violations struct {
	mu    sync.Mutex
	first string
}

// Write looks for a refusal.
func (v *violations) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := bytes.Index(p, []byte("Permissions Violation")); i >= 0 && v.first == "" {
		v.first = string(p[i:])
	}
	return len(p), nil
}

func (v *violations) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.first
}

// runWith runs the bridge until it has done everything once, or the server has
// refused something, and returns that.
func runWith(t *testing.T, o *server.Options) string {
	t.Helper()
	s, cfg := started(t, o)
	log := &violations{}
	b, err := bridge.New(t.Context(), cfg, "test", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Run(ctx) // a bridge that may not do its work need not stop in order
	}()
	defer func() {
		cancel()
		<-done
	}()
	operator := connect(t, s, "operator", "pass-of-OPERATOR")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	posted := false
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && log.String() == ""; {
		<-tick.C
		have := func(stream string) uint64 {
			st, err := operator.js.Stream(t.Context(), stream)
			if err != nil {
				return 0
			}
			return st.CachedInfo().State.LastSeq
		}
		if have("PLASPY_EVENTS") == 0 || have("KV_plaspy_last") == 0 {
			continue
		}
		if !posted {
			posted = true
			for _, m := range []string{"location.device0001", "alert.device0001", "location.device0002", "other"} {
				body := `{"dateTime":"2026-01-02T03:04:05Z","latitude":4.7,"longitude":-74.1}`
				if m == "location.device0002" {
					body = "{"
				}
				if m == "alert.device0001" {
					body = `{"alertName":"SOS","dateTime":"2026-01-02T03:04:05Z"}`
				}
				if _, err := operator.js.Publish(t.Context(), "plaspy.in."+m, []byte(body)); err != nil {
					posted = false // the stream is not there yet
				}
			}
		}
		if _, err := operator.Request("plaspy.api.devices", nil, time.Second); posted && err == nil && have("PLASPY_RESULTS") >= 2 && have("PLASPY_DLQ") >= 2 {
			return log.String()
		}
	}
	if refused := log.String(); refused != "" {
		return refused
	}
	return fmt.Sprintf("nothing that is logged, but not everything is done (%v)", nats.ErrTimeout)
}
