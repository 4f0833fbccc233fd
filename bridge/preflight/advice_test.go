package preflight_test

import (
	"net"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/sim"
)

// TestOpenToTheNetwork: check warns of an embedded server without a login, and of a
// disabled live view.
func TestOpenToTheNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	r.env("BRIDGE_EMBEDDED_ADDR", "0.0.0.0:0", "BRIDGE_HTTP_ADDR", "0.0.0.0:0")
	r.want(2, 0, `warn embedded NATS: 0.0.0.0:0 is not on loopback and requires no login: .*: set BRIDGE_EMBEDDED_ADDR`, `warn live view: disabled: .*: set BRIDGE_HTTP_TOKEN`)
	r.env("BRIDGE_EMBEDDED_ADDR", "localhost:0", "BRIDGE_HTTP_TOKEN", "s3cret-token-of-enough")
	r.want(0, 0, `ok   embedded NATS: localhost:0 is free`)
}

// TestSmallPayload: check warns of a max_payload below the default.
func TestSmallPayload(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	r.broker(nil, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	r.want(1, 0, `warn max_payload: the server accepts messages of 64 KiB at most: raise max_payload`)
}

// TestCollector: check warns of a collector of traces that cannot be reached, and does
// not print a password.
func TestCollector(t *testing.T) {
	r := newRig(t, sim.Options{})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	r.want(1, 0, `warn traces: the collector cannot be reached: .*refused: start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT`)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	r.want(0, 0, `ok   traces: the collector 127.0.0.1:\d+ can be reached`)
}

// TestUnusedLogin: check warns of NATS variables that have no effect.
func TestUnusedLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	r.env("NATS_USER", "bridge", "NATS_PASSWORD", password)
	r.want(1, 0, `warn configuration: NATS_USER has no effect: the embedded server requires no login`)
	r.env("NATS_USER", "", "NATS_PASSWORD", "", "NATS_URL", "nats://127.0.0.1:1", "BRIDGE_EMBEDDED_ADDR", "127.0.0.1:4333")
	r.want(1, 1, `warn configuration: BRIDGE_EMBEDDED_ADDR has no effect: NATS_URL names a server`)
}

// TestTLSAdvice: the advice matches the scheme of NATS_URL.
func TestTLSAdvice(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	s := r.broker(nil)
	_, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.env("NATS_URL", "tls://127.0.0.1:"+port)
	r.want(0, 1, `FAIL NATS: .*: the server has no TLS: use nats:// in NATS_URL`)
}
