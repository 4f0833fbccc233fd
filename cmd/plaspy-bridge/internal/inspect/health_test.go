package inspect

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
)

var program = clitest.With(HealthCommand)

func TestMain(m *testing.M) { program.Main(m) }

func TestHealth(t *testing.T) {
	listener, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health := ops.NewHealth()
	health.Report("nats", ops.Down("no server"))
	server := ops.New(listener, ops.Options{Health: health, Gatherer: ops.NewRegistry(health), Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	defer func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	clitest.ClearEnv(t, "BRIDGE_HTTP_ADDR", server.Addr(), "PLASPY_TIMEOUT", "wrong, but not used here")
	if status, _, stderr := program.Run(t, "health"); status != 1 || !strings.Contains(stderr, "nats: no server") {
		t.Errorf("not ready: status %d, %s", status, stderr)
	}
	if status, stdout, stderr := program.Run(t, "health", "--live"); status != 0 || stdout != "live\n" || stderr != "" {
		t.Errorf("live: status %d, %s%s", status, stdout, stderr)
	}
	health.Report("nats", ops.Up())
	if status, stdout, stderr := program.Run(t, "health"); status != 0 || stdout != "ready\n" || stderr != "" {
		t.Errorf("ready: status %d, %s%s", status, stdout, stderr)
	}
}

// TestHealthOfSomethingThatHangs asks a listener that accepts and never answers.
func TestHealthOfSomethingThatHangs(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	clitest.ClearEnv(t, "BRIDGE_HTTP_ADDR", listener.Addr().String())
	if status, stdout, stderr := program.Run(t, "health", "--timeout=50ms"); status != 1 || !strings.Contains(stderr, "deadline") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
}
