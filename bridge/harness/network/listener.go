package network

import (
	"net"
	"sync"
	"sync/atomic"
)

// Listener accepts connections that can be frozen. It is safe for concurrent use.
type Listener struct {
	net.Listener

	epoch atomic.Int64 // number of calls of Freeze
}

// Freeze freezes all present connections for ever: they receive and send nothing more, and
// neither side learns of it. New connections work.
func (l *Listener) Freeze() { l.epoch.Add(1) }

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, of: l, epoch: l.epoch.Load(), ended: make(chan struct{})}, nil
}

// Frozen reports whether a connection of a [Listener] is frozen.
func Frozen(c net.Conn) bool {
	own, ok := c.(*conn)
	return ok && own.frozen()
}

// conn is a connection of a Listener.
type conn struct {
	net.Conn

	of    *Listener
	epoch int64
	ended chan struct{}
	once  sync.Once
}

func (c *conn) frozen() bool { return c.epoch < c.of.epoch.Load() }

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.frozen() {
		<-c.ended
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	if c.frozen() {
		return len(p), nil // lost on the way
	}
	return c.Conn.Write(p)
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}
