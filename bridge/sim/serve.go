package sim

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/route"
)

// call is one request under way.
type call struct {
	at       time.Time
	seq      uint64
	endpoint route.Endpoint
	id       string          // of the device, decoded
	device   *account.Device // nil if there is no such device, or none in the path
	token    int64           // its number; 0 means that none is valid
	fault    *fault.Rule
}

// ServeHTTP answers one request of the API, or of the control API if it is
// switched on.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.opts.Control && strings.HasPrefix(r.URL.Path, controlPrefix) {
		(&control{s}).ServeHTTP(w, r)
		return
	}
	var c call
	c.endpoint, c.id = route.Parse(r.URL)
	if c.id != "" {
		c.device = s.Device(c.id)
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
	seconds := (wait + time.Second - 1) / time.Second
	a.header = [2]string{"Retry-After", strconv.FormatInt(int64(seconds), 10)}
	return write(w, &a)
}

// answer carries out a request, with the faults that apply to it.
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

// work handles a request: its method, the token, and then the endpoint.
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
	if c.token = s.tokens.Check(bearer(r), time.Now()); c.token == 0 {
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
	if !c.device.WithinQuota(c.at) {
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
