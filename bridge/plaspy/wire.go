package plaspy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/trace"
)

// call is one method's request on its way, carried as the request's context: it has the caller's values and
// ends with the caller's context, but its time limit begins only when the budget has let it through.
type call struct {
	context.Context // cancelled by the caller or by timeout
	cancel          context.CancelCauseFunc
	endpoint        endpoint
	device          string    // empty: the request is about none
	began           time.Time // the send under way
	deviceOnly      bool      // its answer is a 429 for this device alone
	kind            Kind
	timer           *time.Timer
	before          func() error // nil, or asked before each send
	permit          *Permit      // of the send under way; nil without a limit
	kept            error        // before's, which kept the request from being sent
	refused         func()       // nil, or called when an answer refused the token
	conns           int          // that net/http took for the send under way; GotConn runs on RoundTrip's goroutine
	conn            net.Conn     // the last of these
	broken          func()       // nil, or has other requests use new connections
	trace           httptrace.ClientTrace
	sends           int        // of the request so far
	span            trace.Span // of the last of them
}

type callKey struct{}

// Value answers for the call itself before asking the caller's context.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

func newCall(ctx context.Context, r *request) *call {
	c := &call{endpoint: r.endpoint, device: r.id, kind: r.kind, before: r.before, refused: r.refused}
	c.Context, c.cancel = context.WithCancelCause(ctx)
	return c
}

// resting returns an error if the API asked to wait with requests for the device.
func (c *call) resting(b *Budget) error {
	rest := b.blame.rest(c.device)
	if rest <= 0 {
		return nil
	}
	return &Error{
		Endpoint: c.endpoint.String(), Status: http.StatusTooManyRequests, RetryAfter: rest, HasRetryAfter: true, DeviceOnly: true,
		Message: "not sent: the API asked to wait with requests for this device",
	}
}

// watched returns the call as a context under which the connections that net/http takes are known. It sends a GET
// again by itself when a kept-alive connection turns out to have been closed, and the API may have counted the
// first one; these repeats are reported.
func (c *call) watched(repeated func(endpoint)) context.Context {
	c.trace.GotConn = func(info httptrace.GotConnInfo) {
		c.conn = info.Conn
		if c.conns++; c.conns > 1 && repeated != nil {
			repeated(c.endpoint)
		}
	}
	return httptrace.WithClientTrace(c, &c.trace)
}

// begin starts the time limit, again for a replay.
func (c *call) begin(limit time.Duration) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.conns, c.deviceOnly, c.began = 0, false, time.Now()
	c.sends++
	c.timer = time.AfterFunc(limit, func() { c.cancel(errTimeout) })
}

// pause stops the time limit after a refused token: waiting for another one may take longer than any
// request. The answer is read first, while the limit is still there.
func (c *call) pause(res *http.Response) {
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	_ = res.Body.Close()
	res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), broken{err}))
	c.timer.Stop()
}

// broken ends a body that has been read with the error that reading it ended with.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	return 0, io.EOF
}

// end releases the call's resources, once its answer has been read.
func (c *call) end() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.span.End("")
	c.cancel(nil)
}

// wire is the round tripper below the token: one RoundTrip is one request that the API sees, but for those
// that net/http repeats, which it counts.
type wire struct {
	base    http.RoundTripper
	metrics *requestMetrics
	budget  *Budget
	timeout time.Duration
	trace   *trace.Tracer
}

// RoundTrip sends req. The time limit applies to requests made by the Client; the token manager has its own.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ep, c := epToken, callOf(req.Context())
	if c != nil {
		ep = c.endpoint
		// Another request may have been answered 429 while this one waited for the token and the budget.
		if c.kept = c.resting(w.budget); c.kept == nil && c.before != nil {
			c.kept = c.before()
		}
		if c.kept != nil {
			return nil, c.kept
		}
		c.begin(w.timeout)
	}
	span := w.beginSpan(req, ep, c)
	res, err := w.base.RoundTrip(req)
	if err != nil {
		w.sent(span, req, ep, c, 0)
		span.End(failureWord(req.Context(), err))
		w.metrics.count(ep, 0)
		return nil, err
	}
	unzip(res)
	w.sent(span, req, ep, c, res.StatusCode)
	w.metrics.count(ep, res.StatusCode)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		if c != nil {
			c.pause(res)
			if c.refused != nil {
				c.refused()
			}
			c.span.End("")
		}
	}
	w.throttle(c, res)
	return res, nil
}

// throttle obeys 429, and 503 with a Retry-After.
func (w *wire) throttle(c *call, res *http.Response) {
	device, sent := "", time.Time{}
	if c != nil {
		device, sent = c.device, c.began
	}
	switch s := res.StatusCode; {
	case s == http.StatusTooManyRequests:
		after, has := auth.RetryAfter(res.Header, time.Now())
		if only := w.budget.refused(device, sent, after, has); c != nil {
			c.deviceOnly = only
		}
	case s == http.StatusServiceUnavailable:
		if after, _ := auth.RetryAfter(res.Header, time.Now()); after > 0 {
			w.budget.Throttled(after, true)
		}
	case s < http.StatusInternalServerError && device != "":
		w.budget.answered(device, sent)
	}
}

// unzip undoes a compression that was not asked for. Readers bound the result.
func unzip(res *http.Response) {
	if e := strings.ToLower(res.Header.Get("Content-Encoding")); e != "gzip" && e != "x-gzip" {
		return
	}
	res.Body = &unzipped{ReadCloser: res.Body}
	res.ContentLength = -1
	res.Header.Del("Content-Encoding")
}

// unzipped is the body of a compressed answer.
type unzipped struct {
	io.ReadCloser
	plain *gzip.Reader
}

// Read implements io.Reader.
func (u *unzipped) Read(p []byte) (n int, err error) {
	if u.plain == nil {
		if u.plain, err = gzip.NewReader(u.ReadCloser); err != nil {
			return 0, err
		}
	}
	return u.plain.Read(p)
}

// repeated books a request that net/http sent a second time, the first one having had no answer.
func (w *wire) repeated(ep endpoint) {
	w.budget.charge()
	w.metrics.count(ep, 0)
}

// TokenConfig returns the configuration of a token manager with requests through the same connections,
// budget and metrics as the Client's. o.Tokens is not used.
func TokenConfig(o Options, userName string, key func() (string, error)) (auth.Config, error) {
	o, err := o.complete()
	if err != nil {
		return auth.Config{}, err
	}
	return auth.Config{
		Endpoint:  o.BaseURL.JoinPath("api", "Auth", "Token"),
		UserName:  userName,
		Key:       key,
		Transport: o.wire(),
		Admit:     o.Budget.AdmitToken,
		Timeout:   o.Timeout,
		UserAgent: o.UserAgent,
	}, nil
}

// templates are the endpoints' paths as spans name them.
var templates = [epCount]string{
	epToken: "/api/Auth/Token", epDevices: "/api/devices", epDevice: "/api/devices/{id}", epGroups: "/api/groups",
	epLastLocation: "/api/devices/{id}/lastLocation", epLocations: "/api/devices/{id}/locations", epAlerts: "/api/devices/{id}/alerts",
}

// beginSpan begins the span of one send. Nothing of it is sent to the API.
func (w *wire) beginSpan(req *http.Request, ep endpoint, c *call) trace.Span {
	span := w.trace.Request(req.Context(), req.Method, templates[ep])
	if c != nil {
		c.span = span
	}
	return span
}

// sent notes how a send was answered; status 0 is not at all. The call ends the
// span with the answer's body; that of a request for a token, which has no call,
// ends here with the answer's head.
func (w *wire) sent(span trace.Span, req *http.Request, ep endpoint, c *call, status int) {
	if !span.On() {
		return
	}
	r := trace.Request{Method: req.Method, Template: templates[ep], URL: req.URL, Status: status}
	if c != nil {
		r.Resent = c.sends - 1
	}
	span.Sent(&r)
	if c == nil && status != 0 {
		span.End("")
	}
}

// failureWord is why no complete answer came, in a word.
func failureWord(ctx context.Context, err error) string {
	switch {
	case errors.Is(context.Cause(ctx), errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled), ctx.Err() != nil:
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	}
	return "transport"
}

// endpoint is one of the API's, as the metric's label has it. The set is closed.
type endpoint int

const (
	epToken endpoint = iota
	epDevices
	epDevice
	epGroups
	epLastLocation
	epLocations
	epAlerts
	epCount
)

var endpointNames = [epCount]string{"token", "devices", "device", "groups", "last_location", "locations", "alerts"}

func (e endpoint) String() string { return endpointNames[e] }

// list reports whether the endpoint is about no device.
func (e endpoint) list() bool { return e == epDevices || e == epGroups }

// requestMetrics counts requests. Counters are looked up once for each pair of labels: the lookup by label
// costs more than all the rest that this package does for an unchanged poll.
type requestMetrics struct {
	vec   *prometheus.CounterVec
	codes [epCount][600]atomic.Pointer[prometheus.Counter]
}

func newRequestMetrics(reg prometheus.Registerer) *requestMetrics {
	return &requestMetrics{vec: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_api_requests_total",
		Help: "Requests to the Plaspy API, by endpoint (token, devices, device, groups, last_location, locations, alerts) and status code; code is error if there was no answer.",
	}, []string{"endpoint", "code"}))}
}

// count notes one request; status 0 stands for none.
func (m *requestMetrics) count(e endpoint, status int) {
	if status < 100 || status > 599 {
		status = 0
	}
	slot := &m.codes[e][status]
	c := slot.Load()
	if c == nil {
		code := "error"
		if status != 0 {
			code = strconv.Itoa(status)
		}
		counter := m.vec.WithLabelValues(e.String(), code)
		c = &counter
		slot.Store(c)
	}
	(*c).Inc()
}

// register returns the collector that reg knows by that name, which is c if it is the first: the client and
// the token manager's transport count into the same metric.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if known, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := known.ExistingCollector.(C); ok {
			return same
		}
	}
	panic(err) // a programming error, as with MustRegister
}
