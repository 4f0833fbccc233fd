// Package loopback assigns addresses to the servers that tests start ([Ports]), also while
// the tests start processes.
package loopback

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Ports assigns addresses on loopback. The ports lie below the range from which the kernel
// takes those of outgoing connections. A server that is killed therefore finds its port
// free when it returns, and a client that dials it meanwhile cannot connect to itself.
// Several processes share the range by blocks: the process that listens on the first port
// of a block owns the block. Ports is safe for concurrent use.
type Ports struct {
	mu    sync.Mutex
	claim net.Listener // until the process ends
	first int          // of the block, or 0 before the first Take
	next  int
}

const firstPort, lastPort, block = 11000, 32000, 1500

// Take returns a free address that it has not returned before.
func (p *Ports) Take(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == 0 {
		p.chooseLocked(ctx)
	}
	var lc net.ListenConfig
	for range block {
		if p.next++; p.next >= p.first+block {
			p.next = p.first + 1
		}
		addr := address(p.next)
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return "", err
		}
		return addr, awaitClosed(ctx, addr)
	}
	return "", fmt.Errorf("no free port from %d to %d", p.first+1, p.first+block-1)
}

// chooseLocked takes the first block that no other process owns, or any block if all are
// owned.
func (p *Ports) chooseLocked(ctx context.Context) {
	var lc net.ListenConfig
	for first := firstPort; first < lastPort; first += block {
		if l, err := lc.Listen(ctx, "tcp", address(first)); err == nil {
			p.claim, p.first, p.next = l, first, first
			return
		}
	}
	p.first = firstPort + rand.IntN((lastPort-firstPort)/block)*block
	p.next = p.first + rand.IntN(block)
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Listen listens on an address that this process may have listened on before. It waits
// until nothing listens there any more, or until the context is cancelled.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if err := awaitClosed(ctx, addr); err != nil {
		return nil, err
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", addr)
}

// awaitClosed returns when nothing listens on an address any more. A process that this one
// starts has a copy of every listener until it executes its program, so the port of a
// listener may stay in use for a moment after Close.
func awaitClosed(ctx context.Context, addr string) error {
	dialer := net.Dialer{Timeout: 100 * time.Millisecond} // on loopback either way is immediate
	for {
		c, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return ctx.Err()
		}
		_ = c.Close() // nothing was sent
		time.Sleep(time.Millisecond)
	}
}
