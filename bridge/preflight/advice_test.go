package preflight_test

import (
	"net"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/bridge/sim"
)

// TestOpenToTheNetwork: an embedded server that anybody may use, and a live view
// that nobody sees, are worth a warning.
func TestOpenToTheNetwork(t *testing.T) {
	r := newRig(t, sim.Options{})
	r.env("BRIDGE_EMBEDDED_ADDR", "0.0.0.0:0", "BRIDGE_HTTP_ADDR", "0.0.0.0:0")
	r.want(2, 0, `warn embedded NATS: 0.0.0.0:0 is not on loopback, and requires no login: .*: set BRIDGE_EMBEDDED_ADDR`, `warn live view: disabled: .*: set BRIDGE_HTTP_TOKEN`)
	r.env("BRIDGE_EMBEDDED_ADDR", "localhost:0", "BRIDGE_HTTP_TOKEN", "s3cret-token-of-enough")
	r.want(0, 0, `ok   embedded NATS: localhost:0 is free`)
}

// TestSmallPayload: a server that carries less than the bridge is made for.
func TestSmallPayload(t *testing.T) {
	r := newRig(t, sim.Options{})
	r.broker(nil, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	r.want(1, 0, `warn max_payload: the server carries messages of 64 KiB at most: raise max_payload`)
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
