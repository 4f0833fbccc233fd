package broker

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

func TestWith(t *testing.T) {
	srv := natstest.Start(t, natstest.Listen)
	clitest.ClearEnv(t, "NATS_URL", srv.ClientURL(), "BRIDGE_PREFIX", "my-fleet", "PLASPY_TIMEOUT", "wrong, but not used here")
	full := errors.New("the stream is full")
	err := With(t.Context(), "dlq", func(cfg config.Config, js jetstream.JetStream) error {
		if cfg.Prefix != "my-fleet" {
			t.Errorf("prefix %q", cfg.Prefix)
		}
		if _, err := js.AccountInfo(t.Context()); err != nil {
			t.Error(err)
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

// TestWithout: a wrong setting and an interrupt end it before f.
func TestWithout(t *testing.T) {
	uncalled := func(config.Config, jetstream.JetStream) error {
		t.Error("f was called")
		return nil
	}
	clitest.ClearEnv(t, "BRIDGE_WORKERS", "0")
	if _, wrong := errors.AsType[config.Faults](With(t.Context(), "dlq", uncalled)); !wrong {
		t.Error("a wrong setting is no fault")
	}
	clitest.ClearEnv(t, "NATS_URL", "nats://127.0.0.1:1")
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if err := With(ctx, "dlq", uncalled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
