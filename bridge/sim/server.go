package sim

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/route"
)

// Options configure the simulation. The zero value is an API without devices and
// without limits, for the account "sim" with the key "sim-key".
type Options struct {
	Devices int           // how many devices there are at first: device0001 and so on
	IDs     []string      // devices with these ids as well
	Seed    uint64        // the same seed and start give the same fleet
	Profile fleet.Profile // how the devices report; nil: fleet.Mixed
	Start   time.Time     // when the fleet's life begins; zero: when New is called
	History int           // fixes kept per device for range queries, 80 bytes each, and posts; 0: 256

	UserName  string        // empty: "sim"
	APIKey    string        // empty: "sim-key"
	TokenLife time.Duration // 0: an hour
	// ExpiresLayout writes a token's expiry, for time.Format in UTC; empty:
	// whole seconds and Z, as the API's documentation shows it.
	ExpiresLayout string
	RefusedStatus int           // status of a refused key; 0: 400
	Skew          time.Duration // how far the API's clock is ahead, in the Date header and the expiry of tokens

	RateLimit    int  // requests let through in any 60 seconds, the others get 429; 0: no limit
	NoRetryAfter bool // such a 429 does not say when to come back
	DailyUsage   int  // usage of the account per UTC day, 429 beyond; 0: no limit
	DailyResults int  // results per device and UTC day, 429 beyond; 0: no limit
	Idempotent   bool // honours Idempotency-Key: a repeated one is answered as the first time and stored once

	// Record is how many answers of lastLocation, and how many accepted
	// posts, are remembered per device, the newest ones; 0: none.
	Record int
	// Control serves the control API under /_sim/. Whoever reaches the
	// server can then read and change everything.
	Control bool

	Log *slog.Logger // nil: no log; one line per request at debug level
}

// withDefaults fills in the defaults.
func (o Options) withDefaults() Options {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.UserName, "sim")
	set(&o.APIKey, "sim-key")
	set(&o.ExpiresLayout, "2006-01-02T15:04:05Z")
	if o.Profile == nil {
		o.Profile = fleet.Mixed
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	if o.History <= 0 {
		o.History = 256
	}
	if o.TokenLife <= 0 {
		o.TokenLife = time.Hour
	}
	if o.RefusedStatus == 0 {
		o.RefusedStatus = http.StatusBadRequest
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Server is the simulated API: an http.Handler that needs no goroutine and no
// timer of its own. All its methods are safe for concurrent use.
type Server struct {
	opts   Options
	tokens *tokens
	ledger ledger
	faults *fault.Rules

	mu      sync.RWMutex
	devices map[string]*device
	order   []*device // as the device list has them
	groups  []Group   // nil: by the kind of vehicle
	profile fleet.Profile

	// list is the device list as JSON; nil after a change.
	list atomic.Pointer[[]byte]
}

// New makes a server with its fleet.
func New(o Options) *Server {
	o = o.withDefaults()
	s := &Server{opts: o, profile: o.Profile, devices: make(map[string]*device, o.Devices+len(o.IDs))}
	s.tokens = newTokens(o)
	s.ledger.limit.size(o.RateLimit)
	s.ledger.skew = o.Skew
	s.faults = fault.NewRules(o.Seed)
	for i := range o.Devices {
		s.add(deviceID(i + 1))
	}
	for _, id := range o.IDs {
		s.add(id)
	}
	return s
}

// call is one request under way.
type call struct {
	at       time.Time
	seq      uint64
	endpoint route.Endpoint
	id       string  // of the device, decoded
	device   *device // nil: no such device, or none in the path
	token    int64   // its number; 0: none that is valid
	fault    *fault.Rule
}

// answer is the answer to a request. Its body may be borrowed from the pool.
type answer struct {
	status int
	body   []byte
	pooled *[]byte
	header [2]string // one more header line; empty: none
}

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// release gives the body back; the answer must not be used any more.
func (a *answer) release() {
	if a.pooled != nil && cap(a.body) <= 64<<10 {
		*a.pooled = a.body[:0]
		bodies.Put(a.pooled)
	}
	a.pooled, a.body = nil, nil
}

// ServeHTTP answers one request of the API, or of the control API if it is
// switched on.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.opts.Control && strings.HasPrefix(r.URL.Path, controlPrefix) {
		s.control(w, r)
		return
	}
	var c call
	c.endpoint, c.id = route.Parse(r.URL)
	if c.id != "" {
		s.mu.RLock()
		c.device = s.devices[c.id]
		s.mu.RUnlock()
	}
	wait := s.ledger.begin(&c)
	status := 0 // for the ledger, if the request ends in a panic: aborted
	defer func() {
		s.ledger.end(&c, status)
		s.log(r.Context(), &c, status)
	}()
	if s.opts.Skew != 0 {
		w.Header().Set("Date", time.Now().Add(s.opts.Skew).UTC().Format(http.TimeFormat))
	}
	if wait > 0 {
		status = s.throttle(w, wait)
		return
	}
	status = s.answer(w, r, &c)
}

func (s *Server) log(ctx context.Context, c *call, status int) {
	if s.opts.Log.Enabled(ctx, slog.LevelDebug) {
		s.opts.Log.DebugContext(ctx, "request answered", "endpoint", c.endpoint.String(), "device_id", c.id, "seq", c.seq,
			"status", status, "elapsed", time.Since(c.at))
	}
}

// throttle refuses a request that is over the limit.
func (s *Server) throttle(w http.ResponseWriter, wait time.Duration) (status int) {
	a := s.failure(http.StatusTooManyRequests, "Too many requests in a short time.")
	if !s.opts.NoRetryAfter {
		seconds := (wait + time.Second - 1) / time.Second
		a.header = [2]string{"Retry-After", strconv.FormatInt(int64(seconds), 10)}
	}
	return write(w, &a)
}

// answer carries a request out, with the faults that apply to it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c *call) (status int) {
	if s.faults.Any() {
		delay, f := s.faults.Pick(fault.Request{At: c.at, Endpoint: c.endpoint, Device: c.id})
		if delay > 0 && !sleep(r.Context(), delay) {
			panic(http.ErrAbortHandler)
		}
		if f != nil {
			c.fault = f
			return s.misbehave(w, r, c)
		}
	}
	a := s.work(r, c)
	return write(w, &a)
}

// misbehave answers a request with the fault that was picked for it. It panics
// with http.ErrAbortHandler if the fault leaves it without a whole answer.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, c *call) (status int) {
	switch c.fault.Kind.Effect() {
	case fault.Distorts:
		a := s.work(r, c)
		return write(w, &a)
	case fault.Cuts:
		a := s.work(r, c)
		defer a.release()
		a.setHeader(w.Header())
		c.fault.Cut(w, r, a.status, a.body)
		return a.status
	}
	if c.fault.Done {
		a := s.work(r, c)
		a.release()
	}
	return c.fault.Replace(w, r, func(text string) []byte { return s.failure(0, text).body })
}

// Fault switches a fault on, behind those that are on already: of several that
// apply to a request, the delays add up and the first other one happens. Call
// remove to switch it off; a second time has no effect.
func (s *Server) Fault(f fault.Rule) (remove func()) {
	id := s.faults.Add(f)
	return func() { s.faults.Remove(id) }
}

// ClearFaults switches all faults off. Requests that hang go on hanging.
func (s *Server) ClearFaults() { s.faults.Clear() }

// work handles a request: its method, the token, and then
// the endpoint.
func (s *Server) work(r *http.Request, c *call) answer {
	switch {
	case c.endpoint == route.Unknown:
		return s.failure(http.StatusNotFound, "Resource not found.")
	case r.Method != c.endpoint.Method():
		a := s.failure(http.StatusMethodNotAllowed, "Method not allowed.")
		a.header = [2]string{"Allow", c.endpoint.Method()}
		return a
	case c.endpoint == route.Token:
		return s.issueToken(r)
	}
	if c.token = s.tokens.check(r); c.token == 0 {
		return s.failure(http.StatusUnauthorized, "Unauthorized.")
	}
	if s.opts.DailyUsage > 0 && s.ledger.used(0) >= int64(s.opts.DailyUsage) {
		return s.failure(http.StatusTooManyRequests, "Daily limit of usage reached for this account.")
	}
	switch c.endpoint {
	case route.Devices:
		return s.deviceList(c)
	case route.Groups:
		return s.groupList(c)
	}
	if c.device == nil {
		return s.failure(http.StatusNotFound, "Device not found.")
	}
	if !c.device.quota(c.at, s.opts.DailyResults) {
		return s.failure(http.StatusTooManyRequests, "Daily limit of results reached for this device.")
	}
	switch c.endpoint {
	case route.Device:
		return s.deviceEntry(c)
	case route.LastLocation:
		return s.lastLocation(c)
	default:
		return s.post(r, c)
	}
}

// failure is the API's way to say no.
func (s *Server) failure(status int, text string) answer {
	a := newAnswer(status)
	a.body = append(a.body, `{"success":false,"error":`...)
	a.body = appendString(a.body, text)
	a.body = append(a.body, `,"apiUsage":0,"apiDailyUsage":`...)
	a.body = strconv.AppendInt(a.body, s.ledger.used(0), 10)
	a.body = append(a.body, '}')
	return a
}

// success begins an answer of so many results; the caller appends members,
// each with a comma before it, and the closing brace.
func (s *Server) success(results int) answer {
	a := newAnswer(http.StatusOK)
	a.body = append(a.body, `{"success":true,"error":null,"apiUsage":`...)
	a.body = strconv.AppendInt(a.body, int64(results), 10)
	a.body = append(a.body, `,"apiDailyUsage":`...)
	a.body = strconv.AppendInt(a.body, s.ledger.used(results), 10)
	return a
}

func newAnswer(status int) answer {
	b := bodies.Get().(*[]byte)
	return answer{status: status, body: (*b)[:0], pooled: b}
}

// Header values that need no copy of their own: net/http does not write to them.
var jsonType = []string{"application/json; charset=utf-8"}

func (a *answer) setHeader(h http.Header) {
	h["Content-Type"] = jsonType
	if a.header[0] != "" {
		h.Set(a.header[0], a.header[1])
	}
}

// write sends an answer and releases it.
func write(w http.ResponseWriter, a *answer) (status int) {
	status = a.status
	a.setHeader(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(a.body) // fails only if the client has left
	a.release()
	return status
}

// sleep waits, and reports whether the client is still connected afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
