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
	r := newRig(t, sim.Options{})
	r.env("BRIDGE_EMBEDDED_ADDR", "0.0.0.0:0", "BRIDGE_HTTP_ADDR", "0.0.0.0:0")
	r.want(2, 0, `warn embedded NATS: 0.0.0.0:0 is not on loopback and requires no login: .*: set BRIDGE_EMBEDDED_ADDR`, `warn live view: disabled: .*: set BRIDGE_HTTP_TOKEN`)
	r.env("BRIDGE_EMBEDDED_ADDR", "localhost:0", "BRIDGE_HTTP_TOKEN", "s3cret-token-of-enough")
	r.want(0, 0, `ok   embedded NATS: localhost:0 is free`)
}

// TestSmallPayload: check warns of a max_payload below the default.
func TestSmallPayload(t *testing.T) {
	r := newRig(t, sim.Options{})
	r.broker(nil, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	r.want(1, 0, `warn max_payload: the server accepts messages of 64 KiB at most: raise max_payload`)
}

// TestTLSAdvice: the advice matches the scheme of NATS_URL.
func TestTLSAdvice(t *testing.T) {
	r := newRig(t, sim.Options{})
	s := r.broker(nil)
	_, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.env("NATS_URL", "tls://127.0.0.1:"+port)
	r.want(0, 1, `FAIL NATS: .*: the server has no TLS: use nats:// in NATS_URL`)
}
