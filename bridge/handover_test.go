package bridge

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

// polls stands between replicas and the API. It can hold the polls of one of them.
type polls struct {
	api  *httputil.ReverseProxy
	mu   sync.Mutex
	gate chan struct{}   // if not nil, closed when the held polls go on
	held map[string]bool // devices with a poll that is held, by path
	// early is the device that the other replica polled meanwhile.
	early chan string
}

// front starts a server of one replica and returns its address.
func (p *polls) front(t *testing.T, holds bool) url.URL {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gate := p.note(r.URL.Path, holds); gate != nil {
			<-gate
			defer func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.held, r.URL.Path)
			}()
		}
		p.api.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	address, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return *address
}

// note takes note of a request. It returns the gate that the request waits at, or nil.
func (p *polls) note(path string, holds bool) (gate chan struct{}) {
	if !strings.HasSuffix(strings.ToLower(path), "/lastlocation") {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case holds && p.gate != nil:
		p.held[path] = true
		return p.gate
	case p.held[path]:
		select {
		case p.early <- path:
		default:
		}
	}
	return nil
}

// TestHandoverWaitsForPolls: a replica that joins polls no device while a poll of the
// device's previous owner is in flight.
func TestHandoverWaitsForPolls(t *testing.T) {
	t.Parallel()
	const devices = 8
	_, cfg := fleetOf(t, sim.Options{Devices: devices, Seed: 1, Profile: fleet.EverySecond})
	cfg.NATSURL, cfg.HTTPAddr, cfg.Inbound, cfg.Query = config.Servers(natstest.Start(t, natstest.Listen).ClientURL()), "", false, false
	cfg.Workers, cfg.Timeout = devices, time.Minute
	p := &polls{api: httputil.NewSingleHostReverseProxy(&cfg.BaseURL), held: map[string]bool{}, early: make(chan string, 1)}
	first, second := cfg, cfg
	first.BaseURL, second.BaseURL = p.front(t, true), p.front(t, false)
	a, _ := replicaOf(t, first, "a")
	natstest.Eventually(t, "the first one polls", func() bool { _, ended := a.polling.pool.Work(); return ended >= 2*devices })
	gate := make(chan struct{})
	open := sync.OnceFunc(func() {
		p.mu.Lock()
		p.gate = nil
		p.mu.Unlock()
		close(gate)
	})
	defer open()
	p.mu.Lock()
	p.gate = gate
	p.mu.Unlock()
	natstest.Eventually(t, "all its polls are held", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.held) == devices
	})
	b, _ := replicaOf(t, second, "b")
	var before time.Time // it gave any up
	natstest.Eventually(t, "the first one gives devices up", func() bool {
		if now := time.Now(); a.polling.pool.Owned() == devices {
			before = now
			return false
		}
		return true
	})
	select {
	case device := <-p.early:
		// A machine that stood still for as long as a poll may delay the hand-over is no fault.
		if after := time.Since(before); after < replica.DefaultLease*3/4 {
			t.Errorf("%s is polled at most %v after it was given up, and a poll of its previous owner is in flight", device, after)
		}
	case <-time.After(time.Second):
	}
	open()
	natstest.Eventually(t, "the second one polls", func() bool {
		_, ended := b.polling.pool.Work()
		return ended > 0 && a.polling.pool.Owned()+b.polling.pool.Owned() == devices
	})
}
