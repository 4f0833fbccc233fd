package ops_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/publisher/natstest"
)

// listening returns a server that does not serve yet.
func listening(t *testing.T) (net.Listener, *ops.Server) {
	t.Helper()
	listener, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := ops.NewHealth()
	return listener, ops.New(listener, ops.Options{Health: h, Gatherer: ops.NewRegistry(h), Log: slog.New(slog.DiscardHandler)})
}

func TestShutdownBeforeServeAndTwice(t *testing.T) {
	_, s := listening(t)
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Serve(); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	again, err := ops.Listen(t.Context(), s.Addr())
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	_ = again.Close()
}

func TestServeReportsALostListener(t *testing.T) {
	listener, s := listening(t)
	_ = listener.Close()
	if err := s.Serve(); err == nil {
		t.Error("Serve on a closed listener: no error")
	}
}

// TestShutdownEndsStreams holds a stream of events open, past the header timeout's
// worth of reading deadlines, and stops the server under it.
func TestShutdownEndsStreams(t *testing.T) {
	ended := make(chan struct{})
	view := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		_, _ = io.WriteString(w, "begun\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s, url := start(t, "127.0.0.1:0", ops.Options{View: view})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "begun\n" {
		t.Fatalf("%q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-ended
}

// TestShutdownWithoutARequest stops the server under connections without a request,
// one of which has been used before. net/http waits 5 s for a new one.
func TestShutdownWithoutARequest(t *testing.T) {
	s, _ := start(t, "127.0.0.1:0", ops.Options{})
	conns := make([]net.Conn, 3)
	for i := range conns {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	// The last connection was accepted after the others.
	if _, err := io.WriteString(conns[2], "GET /livez HTTP/1.1\r\nHost: "+s.Addr()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conns[2]).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	elapsed := natstest.Stopwatch()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if took := elapsed(); took > 4*time.Second {
		t.Errorf("the stop took %v", took)
	}
	for i, c := range conns[:2] {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("connection %d: %v, want it closed", i, err)
		}
	}
}
