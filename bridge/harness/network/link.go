package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
	"plaspy-bridge/publisher/natstest/loopback"
)

// Link is the network between one bridge and the broker: a relay that can be cut. It is
// safe for concurrent use.
type Link struct {
	addr   string
	broker string

	mu    sync.Mutex
	l     net.Listener
	open  chan struct{} // closed while bytes may pass
	reset bool          // new connections are reset
	conns []net.Conn    // of both sides
	cuts  []timeline.Span
	work  sync.WaitGroup
}

// NewLink relays connections from an address to the broker until it is closed.
func NewLink(ctx context.Context, addr, broker string) (*Link, error) {
	k := &Link{addr: addr, broker: broker, open: make(chan struct{})}
	close(k.open)
	var err error
	if k.l, err = loopback.Listen(ctx, addr); err != nil {
		return nil, fmt.Errorf("link to the broker: %w", err)
	}
	k.work.Go(k.accept)
	return k, nil
}

// URL returns the URL at which a bridge reaches the broker.
func (k *Link) URL() string { return "nats://" + k.addr }

// Drop holds all bytes back in both directions and closes no connection, as a pulled cable
// does. Restore delivers the bytes.
func (k *Link) Drop() { k.cut(false) }

// Reset resets all connections, and new ones until Restore.
func (k *Link) Reset() { k.cut(true) }

// cut begins a cut unless there is one.
func (k *Link) cut(reset bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.cuts); n > 0 && k.cuts[n-1].To.IsZero() {
		return
	}
	k.cuts = append(k.cuts, timeline.Span{From: time.Now()})
	k.open, k.reset = make(chan struct{}), reset
	if !reset {
		return
	}
	for _, c := range k.conns {
		abort(c)
	}
	k.conns = nil
}

// Restore ends the cut.
func (k *Link) Restore() {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.cuts)
	if n == 0 || !k.cuts[n-1].To.IsZero() {
		return
	}
	k.cuts[n-1].To, k.reset = time.Now(), false
	close(k.open)
}

// Cuts returns the spans in which the link was cut.
func (k *Link) Cuts() []timeline.Span {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.cuts)
}

func (k *Link) accept() {
	for {
		c, err := k.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		k.work.Go(func() { k.relay(c) })
	}
}

// relay connects one connection to the broker.
func (k *Link) relay(c net.Conn) {
	if !k.keep(c) || !k.passes(c) {
		return
	}
	b, err := net.DialTimeout("tcp", k.broker, time.Second) //nolint:noctx // to loopback, and bounded
	if err != nil {
		abort(c) // as the broker's machine would
		return
	}
	if !k.keep(b) {
		abort(c)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { k.copy(b, c) })
	both.Go(func() { k.copy(c, b) })
	both.Wait()
	k.forget(c, b)
}

// keep notes a connection, to reset it with the link. It returns false if the connection
// is already reset.
func (k *Link) keep(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reset {
		abort(c)
		return false
	}
	k.conns = append(k.conns, c)
	return true
}

func (k *Link) forget(conns ...net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = slices.DeleteFunc(k.conns, func(c net.Conn) bool { return slices.Contains(conns, c) })
}

// passes waits until bytes may pass. It returns false if the connection is reset.
func (k *Link) passes(c net.Conn) bool {
	for {
		k.mu.Lock()
		open, kept := k.open, slices.Contains(k.conns, c)
		k.mu.Unlock()
		if !kept {
			return false
		}
		select {
		case <-open:
			return true
		default:
		}
		<-open
	}
}

// copy relays the bytes of one direction until they end.
func (k *Link) copy(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if !k.passes(from) {
			return
		}
		if n > 0 {
			if _, e := to.Write(buffer[:n]); e != nil {
				abort(from)
				abort(to)
				return
			}
		}
		if err != nil {
			_ = to.Close() // this ends the other direction
			return
		}
	}
}

// abort closes a connection with a reset.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // the close is enough if this fails
	}
	_ = c.Close()
}

// Close ends the relay and its connections.
func (k *Link) Close() {
	_ = k.l.Close() // ends accept
	k.Reset()
	k.mu.Lock()
	k.reset = true
	for _, c := range k.conns {
		abort(c)
	}
	k.conns = nil
	select {
	case <-k.open:
	default:
		close(k.open)
	}
	k.mu.Unlock()
	k.work.Wait()
}
