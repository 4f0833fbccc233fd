package harness

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
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/sim"
)

// API is the simulated API behind one door for each life of each bridge, so
// that it is known who asked and whom an answer was handed to. It is safe for
// concurrent use.
type API struct {
	Sim *sim.Server

	ports *Ports

	mu     sync.Mutex
	doors  []*Door
	tokens map[string]int64  // by token: its number
	holder map[int64]*Door   // by number: who was given it
	polls  map[string]*Polls // by path; nil unless asked for
	since  time.Time
	asked  []judge.Request
	front  http.Handler // answers instead of the API; nil: nothing does

	// With TLS; set before the first door is opened.
	certificates []tls.Certificate
	proto        int          // version of HTTP
	answering    sync.RWMutex // held while a request is answered
}

// Polls is when a device was asked about.
type Polls struct {
	Last    time.Time
	N       int
	Longest time.Duration // between two
}

// Door is the API as one life of a bridge sees it.
type Door struct {
	URL    string
	Bridge int // an index of [Rig.Bridges]
	Life   int // of the bridge's process

	api   *API
	addr  string
	mu    sync.Mutex
	srv   *http.Server
	done  chan struct{}
	lines *lines                                     // with TLS
	deny  func() (retryAfter time.Duration, ok bool) // nil: nothing is denied
}

// NewAPI puts doors before a simulator.
func NewAPI(s *sim.Server, ports *Ports) *API {
	return &API{Sim: s, ports: ports, tokens: map[string]int64{}, holder: map[int64]*Door{}}
}

// Open opens a door for a life of the first bridge.
func (a *API) Open(ctx context.Context, life int) (*Door, error) { return a.open(ctx, 0, life) }

func (a *API) open(ctx context.Context, bridge, life int) (*Door, error) {
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

// Up has the API reachable again after Down.
func (d *Door) Up(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv != nil {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", d.addr)
	if err != nil {
		return fmt.Errorf("simulated API: %w", err)
	}
	srv := &http.Server{Handler: d, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	serve := func() error { return srv.Serve(l) }
	if d.api.certificates != nil {
		d.api.protect(srv)
		d.lines = &lines{Listener: l}
		serve = func() error { return srv.ServeTLS(d.lines, "", "") }
	}
	go func() {
		defer close(done)
		_ = serve() // ends with Down
	}()
	d.srv, d.done = srv, done
	return nil
}

// Down has connections refused. Answers under way are given first, as far as
// the context lets them.
func (d *Door) Down(ctx context.Context) {
	d.mu.Lock()
	srv, done := d.srv, d.done
	d.srv = nil
	d.mu.Unlock() // an answer under way may need it
	if srv == nil {
		return
	}
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // nothing is left to lose
	}
	<-done
}

// Throttle has the door answer so many of the next requests with 429, and this
// Retry-After in whole seconds. It returns the channel that is closed when the
// last of them was answered.
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

func (d *Door) denied() (retryAfter time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deny == nil {
		return 0, false
	}
	return d.deny()
}

// ServeHTTP notes who asks, and has the simulator answer.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.api.certificates != nil {
		d.api.answering.RLock()
		defer d.api.answering.RUnlock()
		if stands(r) {
			return // came before its connection died, and is not answered
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

// count notes a request. The lock makes the order of the times that of the list.
func (a *API) count(d *Door) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, judge.Request{At: time.Now(), Bridge: d.Bridge, Life: d.Life})
}

// Requests gives all requests of all bridges, failed ones and those for a token
// too, in the order of their time. The slice is the caller's.
func (a *API) Requests() []judge.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// CountPolls begins to note when each device is asked about; the time until its
// first poll counts as a gap like any other.
func (a *API) CountPolls() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.polls, a.since = map[string]*Polls{}, time.Now()
}

// Counted gives what was noted since [API.CountPolls]; the time since the last
// poll counts.
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

// tokenNumber reads which token of the simulator's this is: the claim jti.
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

// holderOf tells which bridge, and which life of it, a token belongs to; ok is
// false where nobody was seen with it.
func (a *API) holderOf(token int64) (bridge, life int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.holder[token]
	if d == nil {
		return 0, 0, false
	}
	return d.Bridge, d.Life, true
}

// Doors gives the newest door of each bridge that has had one, by bridge.
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

// Door gives the newest door of a bridge, or nil.
func (a *API) Door(bridge int) *Door {
	for _, d := range a.Doors() {
		if d.Bridge == bridge {
			return d
		}
	}
	return nil
}

// Close closes every door. Requests that a fault has hanging are cut.
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
