package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports gives out addresses on loopback. They lie below the range from which
// the kernel takes the ports of outgoing connections: a broker that is killed
// finds its port free when it comes back, and no client that dials it meanwhile
// meets itself. Several processes that give out ports share the range by blocks:
// whoever listens on a block's first port has the block. It is safe for
// concurrent use.
type Ports struct {
	mu    sync.Mutex
	claim net.Listener // until the process ends
	first int          // of the block; 0: none yet
	next  int
}

const firstPort, lastPort, block = 20000, 32000, 1500

// Take gives an address that nobody listens on and that was not given before.
func (p *Ports) Take(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == 0 {
		p.choose(ctx)
	}
	var lc net.ListenConfig
	for range block {
		if p.next++; p.next >= p.first+block {
			p.next = p.first + 1
		}
		addr := loopback(p.next)
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		return addr, l.Close()
	}
	return "", fmt.Errorf("no free port from %d to %d", p.first+1, p.first+block-1)
}

// choose takes the first block that no other process has, and any where each is
// taken.
func (p *Ports) choose(ctx context.Context) {
	var lc net.ListenConfig
	for first := firstPort; first < lastPort; first += block {
		if l, err := lc.Listen(ctx, "tcp", loopback(first)); err == nil {
			p.claim, p.first, p.next = l, first, first
			return
		}
	}
	p.first = firstPort + rand.IntN((lastPort-firstPort)/block)*block
	p.next = p.first + rand.IntN(block)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
