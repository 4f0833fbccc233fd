package ops_test

import (
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"plaspy-bridge/bridge/ops"
)

func TestListenTaken(t *testing.T) {
	first, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	taken := first.Addr().String()
	if _, err := ops.Listen(t.Context(), taken); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another program listens on "+taken) {
		t.Errorf("Listen on a taken port: %v", err)
	}
	other, err := ops.ListenFree(t.Context(), taken)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if host, _, _ := net.SplitHostPort(other.Addr().String()); host != "127.0.0.1" || other.Addr().String() == taken {
		t.Errorf("ListenFree took %s beside %s", other.Addr(), taken)
	}
	free, err := ops.FreeAddr(t.Context(), taken)
	if err != nil || free == taken || free == other.Addr().String() {
		t.Errorf("FreeAddr = %s, %v beside %s and %s", free, err, taken, other.Addr())
	}
	again, err := ops.Listen(t.Context(), free)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

func TestListenFree(t *testing.T) {
	tests := []struct{ name, addr string }{
		{"no such address", "192.0.2.1:0"},
		{"no port", "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if l, err := ops.ListenFree(t.Context(), tt.addr); err == nil || !strings.Contains(err.Error(), tt.addr) {
				t.Errorf("ListenFree(%s): %v, %v", tt.addr, l, err)
			}
		})
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	h := ops.NewHealth("token")
	tests := []struct {
		name string
		do   func()
		live bool
		want string // of the error; empty: none
	}{
		{"starting", func() {}, false, "token: starting"},
		{"not ready for two reasons", func() { h.Report("token", ops.Down("key refused")); h.Report("nats", ops.Down("gone")) }, false, "nats: gone\ntoken: key refused"},
		{"lives", func() {}, true, ""},
		{"ready", func() { h.Report("token", ops.Up()); h.Report("nats", ops.Up()) }, false, ""},
		{"stuck", func() { h.Progress("polls", -time.Hour) }, true, "polls: no progress for N s; the limit is -3600 s"},
	}
	s, _ := start(t, "0.0.0.0:0", ops.Options{Health: h})
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.do()
			for _, addr := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port} {
				err := ops.Ask(t.Context(), addr, tt.live)
				got := ""
				if err != nil {
					got = regexp.MustCompile(`for \d+ s`).ReplaceAllString(err.Error(), "for N s")
				}
				if got != tt.want {
					t.Errorf("Ask(%s): %q, want %q", addr, got, tt.want)
				}
			}
		})
	}
}

func TestAskInVain(t *testing.T) {
	listener, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	stranger := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = stranger.Serve(listener) }()
	if err := ops.Ask(t.Context(), addr, false); err == nil || !strings.Contains(err.Error(), "another program seems to listen") {
		t.Errorf("Ask of something else: %v", err)
	}
	_ = stranger.Close()
	if err := ops.Ask(t.Context(), addr, false); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Ask without a server: %v", err)
	}
	if err := ops.Ask(t.Context(), "nowhere", false); err == nil {
		t.Error("Ask of no address: no error")
	}
}
