package front

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/harness/network"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher/natstest/loopback"
)

// API is the simulated API behind one door for each life of each bridge. It is safe for
// concurrent use.
type API struct {
	Sim *sim.Server

	ports *loopback.Ports

	mu     sync.Mutex
	doors  []*Door
	tokens map[string]int64  // by token: its number
	holder map[int64]*Door   // by number: the door at which it was first used
	polls  map[string]*Polls // by path, or nil before CountPolls
	since  time.Time
	asked  []judge.Request
	front  http.Handler // answers instead of the API, unless it is nil

	// Set by Secure.
	certificates []tls.Certificate
	proto        int          // version of HTTP
	answering    sync.RWMutex // held while a request is answered
}

// Polls describes the requests for one device.
type Polls struct {
	Last    time.Time
	N       int
	Longest time.Duration // between two requests
}

// Door is the API as one life of a bridge sees it.
type Door struct {
	URL    string
	Bridge int // its index in the rig
	Life   int // of the bridge's process

	api   *API
	addr  string
	mu    sync.Mutex
	srv   *http.Server
	done  chan struct{}
	conns *network.Listener                          // with TLS
	deny  func() (retryAfter time.Duration, ok bool) // nil denies nothing
}

// New makes an API of a simulator. It has no doors yet.
func New(s *sim.Server, ports *loopback.Ports) *API {
	return &API{Sim: s, ports: ports, tokens: map[string]int64{}, holder: map[int64]*Door{}}
}

// Open opens a door for a life of a bridge.
func (a *API) Open(ctx context.Context, bridge, life int) (*Door, error) {
	addr, err := a.ports.Take(ctx)
	if err != nil {
		return nil, err
	}
	scheme := "http://"
	if a.certificates != nil {
		scheme = "https://"
	}
	d := &Door{URL: scheme + addr, Bridge: bridge, Life: life, api: a, addr: addr}
	if err := d.Up(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doors = append(a.doors, d)
	return d, nil
}

// Up makes the API reachable again after Down.
func (d *Door) Up(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv != nil {
		return nil
	}
	l, err := loopback.Listen(ctx, d.addr)
	if err != nil {
		return fmt.Errorf("simulated API: %w", err)
	}
	srv := &http.Server{Handler: d, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	serve := func() error { return srv.Serve(l) }
	if d.api.certificates != nil {
		d.api.protect(srv)
		d.conns = &network.Listener{Listener: l}
		serve = func() error { return srv.ServeTLS(d.conns, "", "") }
	}
	go func() {
		defer close(done)
		_ = serve() // ends with Down
	}()
	d.srv, d.done = srv, done
	return nil
}

// Down makes the door refuse connections. It first completes the answers in progress, until
// the context is cancelled.
func (d *Door) Down(ctx context.Context) {
	d.mu.Lock()
	srv, done := d.srv, d.done
	d.srv = nil
	d.mu.Unlock() // an answer in progress may need it
	if srv == nil {
		return
	}
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // nothing is left to lose
	}
	<-done
}

// Throttle makes the door answer a number of requests with 429 and Retry-After in whole
// seconds. It returns a channel that is closed with the last of these answers.
func (d *Door) Throttle(times int, retryAfter time.Duration) <-chan struct{} {
	done := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deny = func() (time.Duration, bool) {
		if times == 0 {
			return 0, false
		}
		if times--; times == 0 {
			close(done)
		}
		return retryAfter, true
	}
	return done
}

// denied reports whether the door throttles the next request.
func (d *Door) denied() (retryAfter time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deny == nil {
		return 0, false
	}
	return d.deny()
}

// ServeHTTP notes the bridge that asks, and passes the request to the simulator.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.api.certificates != nil {
		d.api.answering.RLock()
		defer d.api.answering.RUnlock()
		if frozen(r) {
			return // it arrived before Freeze and gets no answer
		}
	}
	d.api.count(d)
	if h := d.api.inFront(); h != nil {
		h.ServeHTTP(w, r)
		return
	}
	if wait, ok := d.denied(); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
		http.Error(w, `{"success":false,"error":"Too many requests in a short time."}`, http.StatusTooManyRequests)
		return
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		d.api.note(d, token, r.URL.EscapedPath())
	}
	d.api.Sim.ServeHTTP(w, r)
}

// note notes the token of a request, and the poll.
func (a *API) note(d *Door, token, path string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.tokens[token]; !known {
		n := tokenNumber(token)
		a.tokens[token] = n
		a.holder[n] = d
	}
	if a.polls == nil || !strings.HasSuffix(path, "/lastLocation") {
		return
	}
	p := a.polls[path]
	if p == nil {
		p = &Polls{Last: a.since}
		a.polls[path] = p
	}
	p.Longest = max(p.Longest, now.Sub(p.Last))
	p.Last = now
	p.N++
}

// count notes a request. The lock keeps the list in the order of the times.
func (a *API) count(d *Door) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, judge.Request{At: time.Now(), Bridge: d.Bridge, Life: d.Life})
}

// Requests returns all requests of all bridges in the order of their time, including
// failed ones and those for a token. The caller owns the slice.
func (a *API) Requests() []judge.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// CountPolls begins to note the polls of each device. The time until the first poll counts
// as a gap.
func (a *API) CountPolls() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.polls, a.since = map[string]*Polls{}, time.Now()
}

// Counted returns the polls of each device since [API.CountPolls]. The time since the last
// poll counts as a gap.
func (a *API) Counted() []Polls {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Polls, 0, len(a.polls))
	for _, p := range a.polls {
		q := *p
		q.Longest = max(q.Longest, now.Sub(q.Last))
		list = append(list, q)
	}
	return list
}

// tokenNumber returns the number of a token of the simulator, its claim jti, or 0.
func tokenNumber(token string) int64 {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct{ Jti string }
	if json.Unmarshal(payload, &claims) != nil {
		return 0
	}
	n, err := strconv.ParseInt(claims.Jti, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Holder returns the bridge and the life that used a token first. It returns false if the
// token was never used.
func (a *API) Holder(token int64) (bridge, life int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.holder[token]
	if d == nil {
		return 0, 0, false
	}
	return d.Bridge, d.Life, true
}

// Doors returns the newest door of each bridge that had one, in the order of the bridges.
func (a *API) Doors() []*Door {
	a.mu.Lock()
	defer a.mu.Unlock()
	newest := map[int]*Door{}
	for _, d := range a.doors {
		newest[d.Bridge] = d
	}
	list := make([]*Door, 0, len(newest))
	for _, bridge := range slices.Sorted(maps.Keys(newest)) {
		list = append(list, newest[bridge])
	}
	return list
}

// Door returns the newest door of a bridge, or nil.
func (a *API) Door(bridge int) *Door {
	for _, d := range a.Doors() {
		if d.Bridge == bridge {
			return d
		}
	}
	return nil
}

// Close closes every door and ends the requests that a fault keeps hanging.
func (a *API) Close() {
	a.mu.Lock()
	doors := a.doors
	a.mu.Unlock()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the rig is closed"))
	for _, d := range doors {
		d.Down(ctx)
	}
}
