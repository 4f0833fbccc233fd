package embedded_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher/embedded"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(o, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

func connect(t *testing.T, s *embedded.Server, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(s), nats.Timeout(time.Minute), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return natstest.JetStream(t, nc)
}

func TestStoreSurvivesRestart(t *testing.T) {
	o := embedded.Options{Addr: "127.0.0.1:0", Dir: filepath.Join(t.TempDir(), "a", "b"), Name: "test"}
	s := start(t, o)
	js := connect(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	st, err := connect(t, start(t, o)).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := st.GetMsg(t.Context(), 1); err != nil || string(m.Data) != "kept" {
		t.Errorf("got %v, %v after the restart, want the message", m, err)
	}
}

// TestKilledAtItsStart starts on the store of a server that was killed during
// its test whether it can write there.
func TestKilledAtItsStart(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, server.JetStreamStoreDir, "_test_2718119240")
	if err := os.MkdirAll(filepath.Dir(left), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, embedded.Options{Addr: "127.0.0.1:0", Dir: dir})
	if got := s.Trouble(t.Context()); got != "" {
		t.Errorf("trouble %q", got)
	}
}

func TestListensForOthers(t *testing.T) {
	s := start(t, embedded.Options{Addr: "127.0.0.1:0", Dir: t.TempDir()})
	nc, err := nats.Connect(s.ClientURL(), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestReviveKeepsPortStoreAndClients(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.Options{Addr: "127.0.0.1:0", Dir: t.TempDir()})
	back := make(chan struct{}, 1)
	js := connect(t, s, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	url := s.ClientURL()
	if err := s.Revive(); err != nil {
		t.Fatal(err)
	}
	<-back
	if got := s.ClientURL(); got != url {
		t.Errorf("listens on %s after the revival, want %s", got, url)
	}
	if _, err := js.Stream(t.Context(), "S"); err != nil {
		t.Errorf("stream after the revival: %v", err)
	}
	if got := s.Trouble(t.Context()); got != "" {
		t.Errorf("trouble %q", got)
	}
}

// TestNoTroubleWhileStreamsAreCreated: the server's own check fails for a moment while a stream is created.
func TestNoTroubleWhileStreamsAreCreated(t *testing.T) {
	s := start(t, embedded.Options{Addr: "127.0.0.1:0", Dir: t.TempDir(), Name: "test"})
	js := connect(t, s)
	done := make(chan error, 1)
	go func() {
		defer close(done)
		for i := range 100 {
			name := fmt.Sprint("S", i)
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
				done <- err
				return
			}
		}
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			if trouble := s.Trouble(t.Context()); trouble != "" {
				t.Error(trouble)
			}
		}
	}
}

func TestErrorsSayWhatToChange(t *testing.T) {
	used := t.TempDir()
	running := start(t, embedded.Options{Addr: "127.0.0.1:0", Dir: used})
	config := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(config, []byte("port: {"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    embedded.Options
		want string
	}{
		{"address in use", embedded.Options{Addr: running.Addr().String(), Dir: t.TempDir()}, "set BRIDGE_EMBEDDED_ADDR"},
		{"store in use", embedded.Options{Addr: "127.0.0.1:0", Dir: used}, "in use by another process"},
		{"store is a file", embedded.Options{Addr: "127.0.0.1:0", Dir: file}, "BRIDGE_DATA_DIR"},
		{"malformed address", embedded.Options{Addr: "nowhere", Dir: t.TempDir()}, "BRIDGE_EMBEDDED_ADDR"},
		{"malformed configuration", embedded.Options{Config: config, Dir: t.TempDir()}, "BRIDGE_EMBEDDED_CONFIG"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := embedded.Start(tt.o, quiet)
			if err == nil {
				_ = s.Stop()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}

func TestConfigurationFile(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "nats.conf")
	text := "listen: \"127.0.0.1:-1\"\nauthorization { users = [{user: bridge, password: pw}] }\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := start(t, embedded.Options{Config: config, Dir: dir})
	if got := s.Addr().String(); !strings.HasPrefix(got, "127.0.0.1:") || strings.HasSuffix(got, ":4222") {
		t.Errorf("listens on %s, want a free port of loopback", got)
	}
	if got := s.Dir(); got != dir {
		t.Errorf("stores in %s, want %s", got, dir)
	}
	if _, err := nats.Connect("", nats.InProcessServer(s), nats.FlusherTimeout(time.Second)); err == nil {
		t.Error("connected without the password that the file asks for")
	}
	js := connect(t, s, nats.UserInfo("bridge", "pw"))
	if _, err := js.AccountInfo(t.Context()); err != nil {
		t.Errorf("JetStream is not on: %v", err)
	}
}
