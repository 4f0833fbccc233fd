package publisher

import (
	"bytes"
	"net"
	"sync"

	"github.com/nats-io/nats.go"
)

// handshakeWrites is how many writes the client makes before it reads the
// server's answer to its login: CONNECT and PING.
const handshakeWrites = 2

// inProcess is an embedded server, to connect to. The server writes its refusal
// of a login while the client still writes, and a pipe has no buffer: both would
// wait until the server's write deadline of 10 s, and the reason would be lost.
// So the writes of the handshake do not wait.
type inProcess struct{ nats.InProcessConnProvider }

// InProcessConn returns one end of a new pipe to the server.
func (p inProcess) InProcessConn() (net.Conn, error) {
	conn, err := p.InProcessConnProvider.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &handshake{Conn: conn, left: handshakeWrites}, nil
}

// handshake is a connection whose first writes return at once. They reach the
// other end in order, and before all later ones.
type handshake struct {
	net.Conn

	mu      sync.Mutex
	left    int           // guarded by mu: writes that do not wait
	pending chan struct{} // guarded by mu: closed when the last of them is done; nil without one
	failed  error         // written before pending is closed
}

// Write writes p, or has it written by a goroutine of its own.
func (h *handshake) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.pending
	if h.left == 0 {
		if before != nil {
			<-before
			h.pending = nil
			if h.failed != nil {
				return 0, h.failed
			}
		}
		return h.Conn.Write(p)
	}
	h.left--
	done, data := make(chan struct{}), bytes.Clone(p)
	h.pending = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if h.failed == nil {
			_, h.failed = h.Conn.Write(data)
		}
	}()
	return len(p), nil
}
