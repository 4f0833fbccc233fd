package replica

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/publisher/natstest"
)

// gate stands between a replica and the broker. While it is shut nothing passes
// either way, without any error, as in a network that is partitioned.
type gate struct {
	server atomic.Pointer[server.Server] // changed by a restart

	mu   sync.Mutex
	shut chan struct{} // closed when it opens again; nil: open
}

func newGate(s *natstest.Server) *gate {
	g := &gate{}
	g.server.Store(s.Server)
	return g
}

// restart starts the broker again.
func (r *rig) restart() {
	r.Helper()
	r.server.Restart()
	for _, n := range r.replicas {
		n.gate.server.Store(r.server.Server)
	}
}

// InProcessConn lets the client take it for an embedded server.
func (g *gate) InProcessConn() (net.Conn, error) {
	g.wait()
	c, err := g.server.Load().InProcessConn()
	if err != nil {
		return nil, err
	}
	return &gated{Conn: c, gate: g}, nil
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) wait() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

type gated struct {
	net.Conn
	gate *gate
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.wait()
	return n, err
}

func (c *gated) Write(b []byte) (int, error) {
	c.gate.wait()
	return c.Conn.Write(b)
}
