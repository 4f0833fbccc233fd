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
// meets itself. It is safe for concurrent use.
type Ports struct {
	mu   sync.Mutex
	next int
}

const firstPort, lastPort = 20000, 32000

// Take gives an address that nobody listens on and that was not given before.
func (p *Ports) Take(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == 0 {
		p.next = firstPort + rand.IntN(lastPort-firstPort)
	}
	var lc net.ListenConfig
	for range lastPort - firstPort {
		if p.next++; p.next >= lastPort {
			p.next = firstPort
		}
		addr := fmt.Sprintf("127.0.0.1:%d", p.next)
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		return addr, l.Close()
	}
	return "", fmt.Errorf("no free port from %d to %d", firstPort, lastPort)
}
