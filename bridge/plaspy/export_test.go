package plaspy

import (
	"context"
	"net"
	"net/http"
)

// SetDial has new connections made by dial, for instance within the process.
func SetDial(p *Connections, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	create := p.make
	p.make = func() *http.Transport {
		t := create()
		t.DialContext = dial
		return t
	}
}
