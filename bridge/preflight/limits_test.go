package preflight_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// configured starts a server with a configuration file's text and points the
// environment to its user bridge.
func (r *rig) configured(text string) *natstest.Server {
	r.Helper()
	file := filepath.Join(r.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		r.Fatal(err)
	}
	s := natstest.Start(r.T, func(into *server.Options) {
		store := into.StoreDir
		*into = *o
		into.AuthTimeout = time.Minute.Seconds() // beside busy processes
		into.StoreDir, into.NoSigs, into.NoLog = store, true, true
		into.Host, into.Port, into.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
		into.MQTT.Host, into.MQTT.Port = "", 0
	})
	r.env("NATS_URL", s.ClientURL(), "NATS_USER", "bridge", "NATS_PASSWORD", password)
	return s
}

// TestAccountLimits: each limit of an account that would stop the bridge is
// reported, with the present and the required value.
func TestAccountLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, limits string
		streams      bool // are there before the limits come
		warn, fail   int
		want         string
	}{
		{"room", "max_file: 1GB, max_streams: 6, max_consumers: 10", false, 0, 0, `ok   JetStream: enabled, 0 of 1024 MiB of the account's storage used`},
		{"streams", "max_file: 1GB, max_streams: 4", false, 0, 2, `FAIL stream PLASPY_DLQ: is missing, and cannot be created: the account has 0 of at most 4 streams, and 6 are missing: raise`},
		{"size limit wanted", "max_file: 1GB, max_bytes_required: true", false, 0, 6, `FAIL stream PLASPY_EVENTS: .*requires a size limit \(max_bytes\)`},
		{"consumers", "max_file: 4GB, max_consumers: 1", true, 0, 5, `FAIL stream PLASPY_EVENTS: has 0 of at most 1 consumers, and the bridge creates up to 2 more: raise`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			s := r.configured(fmt.Sprintf(`jetstream {}
accounts { A { jetstream { %s }, users: [{user: bridge, password: %q}, {user: admin, password: %q}] } }`, tt.limits, password, password))
			if tt.streams {
				_, js := r.admin(s)
				ensure(t, js, nil)
			}
			r.want(tt.warn, tt.fail, tt.want)
		})
	}
	t.Run("nearly full", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		s := r.configured(fmt.Sprintf(`jetstream {}
accounts { A { jetstream { max_file: 1MB }, users: [{user: bridge, password: %q}, {user: admin, password: %q}] } }`, password, password))
		_, js := r.admin(s)
		ensure(t, js, nil)
		for range 97 {
			if _, err := js.Publish(t.Context(), "plaspy.location.truck7", make([]byte, 10<<10)); err != nil {
				t.Fatal(err)
			}
		}
		r.want(3, 0, `warn JetStream: 0 of 1 MiB of the account's storage used: raise the account's limit, or shorten BRIDGE_RETENTION`)
	})
}

// TestStreamLimits: a stream that is there, but takes no more of something.
func TestStreamLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		stream     string
		change     func(*jetstream.StreamConfig)
		fill       int
		warn, fail int
		want       string
	}{
		{"consumers", "PLASPY_RESULTS", func(c *jetstream.StreamConfig) { c.MaxConsumers = 1 }, 0, 0, 1, `FAIL stream PLASPY_RESULTS: has 0 of at most 1 consumers`},
		{"nearly full", "PLASPY_INBOUND", func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, 9, 1, 0, `warn stream PLASPY_INBOUND: is nearly full and then rejects messages: 9 messages`},
		{"results' window", "PLASPY_RESULTS", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, 0, 1, 0,
			`warn stream PLASPY_RESULTS: duplicate_window is 1s, the bridge would set 2m0s: set it to at least 30s: a message that is sent again more than 1s after .* stored twice`},
		{"inbound's window", "PLASPY_INBOUND", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, 0, 1, 0,
			`warn stream PLASPY_INBOUND: duplicate_window is 1s.*: set it to the longest retry time of your producers`},
		{"events' window", "PLASPY_EVENTS", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, 0, 1, 0, `warn stream PLASPY_EVENTS: duplicate_window is 1s.*: harmless`},
		{"a window that suffices", "PLASPY_RESULTS", func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute }, 0, 1, 0, `warn stream PLASPY_RESULTS: .*uses it as it is`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			_, js := r.admin(r.broker(nil))
			want := publisher.Subjects("plaspy").Streams(publisher.StreamOptions{Retention: 168 * time.Hour, Inbound: true})
			for i := range want {
				if want[i].Name == tt.stream {
					tt.change(&want[i])
				}
			}
			if _, err := publisher.EnsureStreams(t.Context(), js, want); err != nil {
				t.Fatal(err)
			}
			for range tt.fill {
				if _, err := js.Publish(t.Context(), "plaspy.in.location.truck7", []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
			r.want(tt.warn, tt.fail, tt.want)
		})
	}
}

// disguised puts a proxy in front of a server that says that it has another
// version.
func disguised(t *testing.T, to, version string) (addr string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				upstream, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
				if err != nil {
					return
				}
				defer upstream.Close()
				from := bufio.NewReader(upstream)
				wg.Go(func() {
					_, _ = io.Copy(upstream, client)
					_ = upstream.Close()
				})
				for { // it says so more than once
					line, err := from.ReadString('\n')
					if strings.HasPrefix(line, "INFO ") {
						line = strings.Replace(line, server.VERSION, version, 1)
					}
					if _, failed := io.WriteString(client, line); err != nil || failed != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// TestVersions: servers that are too old, and those with a fault in replicated
// work queues.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version, inbound string
		warn, fail       int
		want             string
	}{
		{"2.10.29", "true", 0, 1, `FAIL NATS: connected to .*nats-server 2.10.29: upgrade the server: the bridge needs 2.11 or newer`},
		{"2.11.0", "true", 1, 0, `warn NATS: connected to .*nats-server 2.11.0: upgrade it if the account has msg_trace`},
		{"2.12.2", "true", 1, 0, `warn NATS: .*nats-server 2.12.2: upgrade it if the account has msg_trace`},
		{"2.12.3", "true", 1, 0, `warn NATS: .*nats-server 2.12.3: upgrade it before you give PLASPY_INBOUND replicas.*work queues`},
		{"2.12.4", "true", 1, 0, `warn NATS: .*nats-server 2.12.4: upgrade it`},
		{"2.12.4", "false", 1, 0, `warn NATS: .*2.12.4: upgrade it if the account has msg_trace`},
		{"2.12.11", "true", 1, 0, `warn NATS: .*2.12.11: upgrade it if the account has msg_trace`},
		{"2.12.12", "true", 0, 0, `ok   NATS: connected`},
		{"3.0.0", "true", 0, 0, `ok   NATS: connected`},
	} {
		t.Run(tt.version+" inbound "+tt.inbound, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			s := r.broker(nil)
			u, err := url.Parse(s.ClientURL())
			if err != nil {
				t.Fatal(err)
			}
			r.env("NATS_URL", disguised(t, u.Host, tt.version), "BRIDGE_INBOUND", tt.inbound)
			r.want(tt.warn, tt.fail, tt.want)
		})
	}
}

// TestDurability: check reports the loss after a power failure as exactly as it is known.
func TestDurability(t *testing.T) {
	t.Parallel()
	t.Run("another program's server", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.broker(nil)
		r.want(0, 0, `ok   power failure: .*sync_interval \(default 2m.*publishes every device's newest state again, but inbound messages.*lost`)
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sim.Options{})
		r.want(0, 0, `warn power failure: messages acknowledged in the last 2m0s \(sync_interval\) are lost: .*BRIDGE_EMBEDDED_CONFIG`)
	})
	for sync, want := range map[string]string{
		"10s":    `warn power failure: messages acknowledged in the last 10s`,
		"always": `ok   power failure: no acknowledged message is lost \(sync_interval: always\)`,
	} {
		t.Run("embedded with "+sync, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			file := filepath.Join(t.TempDir(), "nats.conf")
			if err := os.WriteFile(file, fmt.Appendf(nil, "listen: 127.0.0.1:-1\njetstream { sync_interval: %s }", sync), 0o600); err != nil {
				t.Fatal(err)
			}
			r.env("BRIDGE_EMBEDDED_CONFIG", file)
			r.want(0, 0, want)
		})
	}
}
