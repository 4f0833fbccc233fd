package plaspy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy/daily"
	"plaspy-bridge/bridge/trace"
)

const (
	maxLastLocation = 1 << 20
	maxFleet        = 256 << 20 // the bridge's own reading of the lists: a million devices
	maxListQuery    = 8 << 20   // no NATS message is larger by default
	maxAnswer       = 4 << 20
	maxExcerpt      = 1 << 10
	maxExcerptLook  = 64 << 10 // white space beyond may be cut off unseen
	defaultTimeout  = 10 * time.Second
)

// Options configure a [Client].
type Options struct {
	BaseURL    *url.URL              // root of the API, absolute; a path is kept as a prefix
	Timeout    time.Duration         // per request, from admission to the end of the answer; 0 means 10 s
	Tokens     *auth.Manager         // required by New; see TokenConfig
	Budget     *Budget               // required
	Log        *slog.Logger          // required
	Registerer prometheus.Registerer // may be nil
	Trace      *trace.Tracer         // makes a span of each request; nil means none
	MaxConns   int                   // requests at once, for the size of the connection pool; 0 means 32
	UserAgent  string                // empty: plaspy-bridge
	TLS        *tls.Config           // of the connections; nil means Go's, from TLS 1.2 on
	// Transport replaces the connection pool; it must not follow redirects nor unpack answers. To share one
	// pool with the token manager, set it to NewTransport's.
	Transport http.RoundTripper
}

// NewTransport returns a connection pool for o.MaxConns requests at once. Its idle connections are the caller's to
// close.
func NewTransport(o Options) *Connections {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 32
	}
	return newConnections(o.MaxConns, o.Timeout, o.TLS)
}

// complete fills in defaults and refuses options that cannot work.
func (o Options) complete() (Options, error) {
	if o.BaseURL == nil || o.BaseURL.Host == "" || (o.BaseURL.Scheme != "http" && o.BaseURL.Scheme != "https") {
		return o, errors.New("base URL is not an absolute http or https URL")
	}
	// Nothing but the root belongs in front of every path.
	o.BaseURL = &url.URL{Scheme: o.BaseURL.Scheme, Host: o.BaseURL.Host, Path: o.BaseURL.Path, RawPath: o.BaseURL.RawPath}
	if o.Budget == nil || o.Log == nil {
		return o, errors.New("budget and logger are required")
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.UserAgent == "" {
		o.UserAgent = "plaspy-bridge"
	}
	if o.Transport == nil {
		o.Transport = NewTransport(o)
	}
	return o, nil
}

func (o Options) wire() *wire {
	return &wire{base: o.Transport, metrics: newRequestMetrics(o.Registerer), budget: o.Budget, timeout: o.Timeout, trace: o.Trace}
}

// Client calls the API. It is safe for concurrent use. Each method blocks until it has a token, a place in the
// budget and an answer, or ctx is done; see the package comment for errors.
type Client struct {
	opt     Options
	prefix  url.URL // BaseURL without a slash at the end
	wire    *wire
	rt      *auth.Transport
	post    http.Header // of a POST
	made    time.Time
	usage   prometheus.Gauge
	queries chan struct{} // slots for answers that may be large
	refused refusedTokens
	heard   atomic.Int64 // how long after made the API itself answered last; 0 means not yet
}

// New returns a client. It sends nothing.
func New(o Options) (*Client, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if o.Tokens == nil {
		return nil, errors.New("token manager is required")
	}
	c := &Client{opt: o, prefix: *o.BaseURL, wire: o.wire(), made: time.Now(), queries: make(chan struct{}, 4)}
	c.usage = register(o.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "plaspy_bridge_api_daily_usage",
		Help: "The account's usage today, from the last answer with apiDailyUsage.",
	}))
	c.prefix.Path = strings.TrimRight(o.BaseURL.Path, "/")
	c.prefix.RawPath = strings.TrimRight(o.BaseURL.EscapedPath(), "/")
	get := http.Header{
		"User-Agent":      {o.UserAgent},
		"Accept":          {"application/json"},
		"Accept-Encoding": {"identity"}, // without it, any encoding would be welcome
	}
	c.rt = &auth.Transport{Source: o.Tokens, Base: c.wire, Admit: o.Budget.Admit, Header: get}
	c.post = get.Clone()
	c.post["Content-Type"] = []string{"application/json"}
	return c, nil
}

// Answered returns the time of the API's own last answer, successful or not, or the zero time. Answers 5xx
// and those of something in front of the API do not count.
func (c *Client) Answered() time.Time {
	if after := c.heard.Load(); after != 0 {
		return c.made.Add(time.Duration(after))
	}
	return time.Time{}
}

// answered notes that the API itself gave this answer.
func (c *Client) answered(p *reply) {
	p.own = true
	if p.status < 500 {
		c.heard.Store(int64(max(p.at.Sub(c.made), 1)))
	}
}

// noteUsage notes the usage that an answer of the API states.
func (c *Client) noteUsage(p *reply, env envelope) {
	if env.dailyUsage > 0 {
		c.usage.Set(float64(env.dailyUsage))
	}
	if p.permit == nil || !c.opt.Budget.day.On() {
		return
	}
	a := daily.Answer{
		Usage: env.usage, Total: env.dailyUsage, Served: p.status <= 299 && env.success != no,
		Refused: p.status == http.StatusTooManyRequests && !p.device,
	}
	a.Date, _ = http.ParseTime(p.header.Get("Date")) // the zero time if there is none
	c.opt.Budget.heard(p.permit, a)
}

// request is one request of a method.
type request struct {
	endpoint endpoint
	kind     Kind
	id       string // of a device; empty if the path has none
	tail     string // path behind the id
	post     bool
	body     []byte
	key      string       // Idempotency-Key, if any
	before   func() error // of PostOptions
	refused  func()       // likewise
	bound    int64        // of the answer
	buf      []byte       // to read it into
}

// reply is an answer that has been read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
	buf    []byte // body's memory with any byte order mark before it
	at     time.Time
	device bool // it is a 429 for this device alone
	own    bool // the API itself answered: the body is a JSON object with success or error
	token  auth.Token
	permit *Permit
}

// call sends a request and judges the answer; payload names the member to look for. If the answer says that the
// token is refused, it sends the request once more with another one.
func (c *Client) call(ctx context.Context, r *request, payload string) (p reply, env envelope, err error) {
	for try := 0; ; try++ {
		p, err = c.do(ctx, r)
		if err == nil && r.endpoint.list() {
			p.body = c.opt.Tokens.Secrets().Bytes(p.body)
		}
		switch {
		case err != nil:
		case p.status == http.StatusNoContent:
			c.answered(&p)
		default:
			env, err = c.open(r, &p, payload)
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.tokenRefused || !c.another(r, p.token, e, try) {
			if !ok || !e.reauth {
				c.refused.forget(r.key)
			}
			return p, env, err
		}
		if r.refused != nil {
			r.refused()
		}
		r.buf = p.buf
	}
}

// do sends a request and returns the answer if it is 2xx and fits. Otherwise the error is the method's.
func (c *Client) do(ctx context.Context, r *request) (reply, error) {
	if !r.endpoint.list() {
		if err := CheckID(r.id); err != nil {
			return reply{buf: r.buf}, err
		}
	}
	call := newCall(ctx, r)
	defer call.end()
	if err := call.resting(c.opt.Budget); err != nil {
		return reply{buf: r.buf}, err
	}
	res, token, err := c.rt.Send(c.newRequest(call, r))
	if err != nil {
		return reply{buf: r.buf}, c.failure(ctx, call, r, err)
	}
	defer func() { _ = res.Body.Close() }() // the body has been read; closing adds nothing
	out := reply{status: res.StatusCode, header: res.Header, device: call.deviceOnly, token: token, permit: call.permit}
	if encoding := res.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		out.buf, out.at = r.buf, time.Now()
		return out, c.bad(r, &out, fmt.Sprintf("answer is encoded (%s), which was not asked for", encoding), nil)
	}
	out.buf, err = readBody(res, r.buf, r.bound)
	out.body = bytes.TrimPrefix(out.buf, []byte("\ufeff"))
	out.at = time.Now()
	switch {
	case errors.Is(err, ErrTooLarge):
		out.own = out.status <= 299 // or so it is taken to be: refusals are small
		return out, c.bad(r, &out, fmt.Sprintf("answer is larger than %d bytes", r.bound), ErrTooLarge)
	case err != nil:
		err := c.failure(ctx, call, r, fmt.Errorf("read answer: %w", err))
		if e, ok := errors.AsType[*Error](err); ok {
			e.Status = res.StatusCode
		}
		return out, err
	case res.StatusCode < 200 || res.StatusCode > 299:
		return out, c.refusal(r, &out)
	}
	return out, nil
}

// newRequest builds the request by hand: parsing a URL text for each poll would cost more than all the rest.
func (c *Client) newRequest(call *call, r *request) *http.Request {
	u := c.prefix
	u.Path = r.path(c.prefix.Path, r.id)
	if escaped := escapeID(r.id); escaped != r.id || c.prefix.RawPath != c.prefix.Path {
		u.RawPath = r.path(c.prefix.RawPath, escaped)
	} else {
		u.RawPath = "" // the path needs no escaping
	}
	req := http.Request{ // a GET has the header of the transport
		Method: http.MethodGet, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if !r.post {
		return req.WithContext(call.watched(c.wire.repeated))
	}
	req.Method, req.Header = http.MethodPost, c.post
	req.Body, req.ContentLength = auth.NewBody(r.body), int64(len(r.body))
	if r.key != "" {
		req.Header = req.Header.Clone()
		req.Header.Set("Idempotency-Key", headerValue(r.key))
	}
	return req.WithContext(call.watched(nil))
}

// headerValue makes a message id fit for a header: net/http refuses to send anything but printable text.
func headerValue(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return s
	}
	return url.PathEscape(s)
}

// path returns the path below a prefix, with id in its place.
func (r *request) path(prefix, id string) string {
	switch r.endpoint {
	case epDevices:
		return prefix + "/api/devices"
	case epGroups:
		return prefix + "/api/groups"
	}
	return prefix + "/api/devices/" + id + r.tail
}

// readBody reads an answer into buf, which grows as needed, but not beyond bound.
func readBody(res *http.Response, buf []byte, bound int64) ([]byte, error) {
	buf = buf[:0]
	if res.ContentLength > bound {
		return buf, ErrTooLarge
	}
	// One more than stated, so that the last read sees the end; a stated length is not believed beyond a MiB.
	if need := max(int(min(res.ContentLength, 1<<20))+1, 1<<10); need > cap(buf) {
		buf = make([]byte, 0, need)
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		// The whole capacity may be more than the bound; the answer must not be.
		room := min(int64(cap(buf)), bound+1)
		n, err := res.Body.Read(buf[len(buf):room])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > bound:
			return buf[:bound], ErrTooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// failure describes a request to which no complete answer came.
func (c *Client) failure(ctx context.Context, call *call, r *request, err error) error {
	call.span.End(failureWord(call, err))
	switch cause := context.Cause(call); {
	case call.kept != nil:
		if e, ok := errors.AsType[*Error](call.kept); ok {
			return e
		}
		return fmt.Errorf("%s: %w", r.endpoint, call.kept)
	case ctx.Err() != nil:
		if !errors.Is(err, ctx.Err()) { // err may hold only the cause, which can be anything
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return fmt.Errorf("%s: %w", r.endpoint, err)
	case errors.Is(cause, errTimeout):
		err = fmt.Errorf("%w (%v)", errTimeout, c.opt.Timeout)
	case errors.Is(err, ErrNoBudget), errors.Is(err, auth.ErrForeignHost):
		return fmt.Errorf("%s: %w", r.endpoint, err)
	}
	if call.broken != nil {
		call.broken()
	}
	return &Error{Endpoint: r.endpoint.String(), Message: c.clean(err.Error()), Err: err, transport: true}
}

// bad describes an answer other than the documented one.
func (c *Client) bad(r *request, p *reply, message string, cause error) *Error {
	e := &Error{Endpoint: r.endpoint.String(), Status: p.status, Foreign: !p.own, Message: c.clean(message), Err: cause}
	e.Excerpt = c.clean(string(p.body[:min(len(p.body), maxExcerptLook)]))
	e.DeviceOnly = p.device
	e.RetryAfter, e.HasRetryAfter = auth.RetryAfter(p.header, p.at)
	return e
}

// refusal describes an answer with another status than 2xx.
func (c *Client) refusal(r *request, p *reply) *Error {
	message, tokenRefused := "", false
	if p.status >= 300 && p.status <= 399 {
		message = "redirected, which is not followed"
		if to, err := url.Parse(p.header.Get("Location")); err == nil && to.Host != "" {
			message = "redirected to " + to.Scheme + "://" + to.Host + ", which is not followed"
		}
	} else if env, err := openEnvelope(p.body, ""); err == nil && env.own {
		message, tokenRefused = env.message, env.refusesToken()
		c.answered(p)
		c.noteUsage(p, env)
	}
	if message == "" {
		message = strings.ToLower(http.StatusText(p.status))
	}
	if message == "" {
		message = "unknown status"
	}
	e := c.bad(r, p, message, nil)
	e.tokenRefused = tokenRefused && p.status != http.StatusUnauthorized // for which the transport has fetched another
	return e
}

// clean makes a text from outside fit for an error: no secrets, printable, bounded.
func (c *Client) clean(s string) string {
	return c.opt.Tokens.Secrets().Text(s, maxExcerpt)
}
