package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Link is the network between one bridge and the broker: a relay that can be
// cut. It is safe for concurrent use.
type Link struct {
	addr   string
	broker string

	mu    sync.Mutex
	l     net.Listener
	open  chan struct{} // closed while bytes pass
	reset bool          // connections are not taken
	conns []net.Conn    // of both sides
	cuts  []timeline.Span
	work  sync.WaitGroup
}

// NewLink relays connections to an address to the broker until it is closed.
func NewLink(ctx context.Context, addr, broker string) (*Link, error) {
	k := &Link{addr: addr, broker: broker, open: make(chan struct{})}
	close(k.open)
	var lc net.ListenConfig
	var err error
	if k.l, err = lc.Listen(ctx, "tcp", addr); err != nil {
		return nil, fmt.Errorf("link to the broker: %w", err)
	}
	k.work.Go(k.accept)
	return k, nil
}

// URL is where a bridge finds the broker at the other end.
func (k *Link) URL() string { return "nats://" + k.addr }

// Drop has every byte held back, in both directions, and no connection is told:
// a cable that was pulled. Restore lets go what was held back.
func (k *Link) Drop() { k.cut(false) }

// Reset has every connection reset, and new ones too.
func (k *Link) Reset() { k.cut(true) }

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

// Restore makes the link whole again.
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

// Cuts gives the times in which the link was cut.
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

// relay joins one connection with the broker.
func (k *Link) relay(c net.Conn) {
	if !k.keep(c) || !k.passes(c) {
		return
	}
	b, err := net.DialTimeout("tcp", k.broker, time.Second) //nolint:noctx // to loopback, and bounded
	if err != nil {
		abort(c) // as the broker's own machine would
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

// keep notes a connection to be reset with the link; false: it is reset already.
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

// passes waits until bytes pass; false: the connection is reset.
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

// copy carries bytes one way, and the end of them.
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
			_ = to.Close() // its own copy ends with that
			return
		}
	}
}

// abort closes a connection so that the other side sees a reset.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // closed is closed, with or without
	}
	_ = c.Close()
}

// Close ends the relay.
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
