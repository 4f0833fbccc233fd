package publisher_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// lines collects a log and announces each write. Safe for concurrent use.
type lines struct {
	logtest.Log
	n chan struct{}
}

// Write adds to the log.
func (l *lines) Write(p []byte) (int, error) {
	defer func() {
		select {
		case l.n <- struct{}{}:
		default:
		}
	}()
	return l.Log.Write(p)
}

// TestRefusedLoginInProcess: an embedded server that refuses the login neither
// holds up the connect nor hides why.
func TestRefusedLoginInProcess(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "bridge", "s3cret" })
	log := &lines{n: make(chan struct{}, 1)}
	elapsed := natstest.Stopwatch()
	c, err := publisher.Connect(publisher.ConnOptions{InProcess: srv, User: "bridge", Password: "other"}, slog.New(slog.NewTextHandler(log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Shut(0) }()
	if d := elapsed(); d > 8*time.Second { // the server's write deadline is 10 s
		t.Errorf("took %s", d)
	}
	<-log.n
	if got := c.Trouble(); !strings.Contains(strings.ToLower(got), "authorization violation") {
		t.Errorf("trouble %q", got)
	}
	if got := log.String(); strings.Count(got, "could not connect to nats, retrying") != 1 || !strings.Contains(strings.ToLower(got), "authorization violation") {
		t.Errorf("log:\n%s", got)
	}
	good, err := publisher.Connect(publisher.ConnOptions{InProcess: srv, User: "bridge", Password: "s3cret"}, slog.New(slog.DiscardHandler), nil)
	if err != nil || !good.IsConnected() {
		t.Fatalf("with the right password: %v", err)
	}
	<-good.Up()
	select {
	case <-c.Up():
		t.Error("a connection that was never made is up")
	default:
	}
	_ = good.Shut(time.Second)
}

// TestUnreachable: the reason is logged once, however often it is tried.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tries := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			tries <- struct{}{}
		}
	}()
	log := &lines{n: make(chan struct{}, 1)}
	c, err := publisher.Connect(publisher.ConnOptions{URL: l.Addr().String()}, slog.New(slog.NewTextHandler(log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Shut(0) }()
	for range 6 {
		<-tries
	}
	seen := map[string]bool{}
	for line := range strings.Lines(log.String()) {
		_, reason, _ := strings.Cut(line, "msg=")
		if seen[reason] || !strings.Contains(reason, "could not connect to nats, retrying") {
			t.Errorf("log:\n%s", log)
		}
		seen[reason] = true
	}
	if len(seen) == 0 || c.Trouble() == "" {
		t.Errorf("trouble %q, log:\n%s", c.Trouble(), log)
	}
}

// TestUnusableFiles checks that a file without valid content is an error at once, which
// names the variable and none of its content. The client would retry for ever.
func TestUnusableFiles(t *testing.T) {
	const (
		jwt  = "-----BEGIN NATS USER JWT-----\neyJ0.eyJs3cret.c2ln\n------END NATS USER JWT------\n"
		seed = "-----BEGIN USER NKEY SEED-----\nSUAs3cret\n------END USER NKEY SEED------\n"
	)
	for _, tc := range []struct{ name, content, variable string }{
		{"empty creds", "", "NATS_CREDS"},
		{"creds that are something else", "s3cret\n", "NATS_CREDS"},
		{"creds without a seed", jwt, "NATS_CREDS"},
		{"creds with a broken seed", jwt + seed, "NATS_CREDS"},
		{"creds without a JWT", seed, "NATS_CREDS"},
		{"empty nkey", "", "NATS_NKEY"},
		{"nkey that is something else", "s3cret\n", "NATS_NKEY"},
		{"broken nkey", "SUAs3cret\n", "NATS_NKEY"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			o := publisher.ConnOptions{URL: "127.0.0.1:1", Creds: file}
			if tc.variable == "NATS_NKEY" {
				o.Creds, o.NKey = "", file
			}
			conn, err := publisher.Connect(o, slog.New(slog.DiscardHandler), nil)
			if err == nil {
				_ = conn.Shut(0)
			}
			if !errors.Is(err, publisher.ErrCredentials) || !strings.Contains(err.Error(), tc.variable) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestConnectContext: a server that does not answer does not hold up a stop.
func TestConnectContext(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	done := make(chan error, 1)
	go func() {
		_, err := publisher.ConnectContext(ctx, publisher.ConnOptions{URL: l.Addr().String()}, slog.New(slog.DiscardHandler), nil)
		done <- err
	}()
	conn := <-accepted
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	// The client that was left behind goes away once its server does.
	_ = conn.Close()
	_ = l.Close()
	for conn := range accepted {
		_ = conn.Close()
	}
}

// TestInboxAndDomain: answers arrive below the prefix, and JetStream is asked in
// the domain.
func TestInboxAndDomain(t *testing.T) {
	srv := natstest.Start(t, func(o *server.Options) {
		o.JetStreamDomain = "hub"
		o.Users = []*server.User{{Username: "bridge", Password: "s3cret", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_bridge.>"}},
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>"}},
		}}}
	})
	c, err := publisher.Connect(publisher.ConnOptions{InProcess: srv, User: "bridge", Password: "s3cret", InboxPrefix: "_INBOX_bridge", Domain: "hub"}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Shut(time.Second) }()
	js, err := c.OpenJetStream()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if info, err := js.AccountInfo(ctx); err != nil || info.Domain != "hub" {
		t.Errorf("got %+v, %v", info, err)
	}
	if c.InboxPrefix() != "_INBOX_bridge" {
		t.Errorf("prefix %s", c.InboxPrefix())
	}
}
