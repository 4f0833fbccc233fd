package plaspy

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
)

const (
	// connectionsLast is the least time after which all connections are replaced, so that changes of DNS and of
	// load balancers count; a random part of connectionsSpread is added.
	connectionsLast   = 4 * time.Minute
	connectionsSpread = 2 * time.Minute
	// A connection that answers failingTries requests in a row, or all of them for failingFor, with 5xx leads to a
	// failing server.
	failingTries = 3
	failingFor   = 5 * time.Second
	// replaceEvery is the least time between two replacements because of 5xx.
	replaceEvery = 10 * time.Second
	// silentFor is how long a request waits before the others get new connections. Its own time limit may be longer.
	silentFor = 20 * time.Second
)

// Connections is a pool of connections to the API: HTTP/2 if the server has it, through the proxy that the
// environment names, without compression. It is an http.RoundTripper that does not follow redirects.
//
// All connections are replaced every few minutes, and as soon as one of them fails: when a request on it ends in a
// timeout or a transport error, or when all that it carries are answered 5xx. The tries after that, the probes of
// an open [Circuit] among them, go out on new ones. Requests under way end on the old ones.
type Connections struct {
	make  func() *http.Transport
	watch bool // a request may wait for longer than silentFor

	mu       sync.Mutex
	now      *generation
	replaced time.Time         // because of 5xx
	old      []*http.Transport // which may still have requests under way
}

// generation is a set of connections that are replaced together.
type generation struct {
	*http.Transport
	until time.Time

	mu      sync.Mutex
	failing map[net.Conn]failing // connections that have answered 5xx since they last answered otherwise
}

type failing struct {
	tries int
	since time.Time
}

// newConnections returns an empty pool for maxConns requests at once. Its idle connections are the caller's to
// close.
func newConnections(maxConns int, timeout time.Duration, secure *tls.Config) *Connections {
	if secure == nil {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	dialer := &net.Dialer{Timeout: timeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	return &Connections{watch: timeout > silentFor, make: func() *http.Transport {
		return &http.Transport{
			Proxy:       proxyOf(httpproxy.FromEnvironment()),
			DialContext: dialer.DialContext,
			// HTTP/2 if the server has it; setting TLSClientConfig would otherwise turn it off.
			ForceAttemptHTTP2: true,
			// A cancelled stream leaves its connection in the pool: only a ping finds out that it is dead.
			HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
			TLSClientConfig:     secure.Clone(),
			TLSHandshakeTimeout: timeout,
			// As many idle as busy: net/http's default of two would open a connection for most polls.
			MaxIdleConns:        maxConns,
			MaxIdleConnsPerHost: maxConns,
			IdleConnTimeout:     90 * time.Second,
			// No ResponseHeaderTimeout: the call's own limit covers it, and this would be another timer a poll.
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			// Answers of 900 bytes are not worth unpacking, and a packed one could unpack to anything.
			DisableCompression: true,
			ReadBufferSize:     8 << 10,
		}
	}}
}

// RoundTrip sends a request on one of the connections.
func (p *Connections) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callOf(req.Context())
	if c == nil { // a request for a token
		c = &call{began: time.Now()}
		trace := httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { c.conn = info.Conn }}
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &trace))
	}
	g := p.current(c.began)
	c.broken = func() { p.replace(g) }
	if p.watch {
		defer time.AfterFunc(silentFor, c.broken).Stop()
	}
	res, err := g.RoundTrip(req)
	switch {
	case err != nil:
		if ctx := req.Context(); ctx.Err() == nil || errors.Is(context.Cause(ctx), errTimeout) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			p.replace(g)
		}
	case res.StatusCode >= http.StatusInternalServerError:
		p.failed(g, c.conn)
	default:
		g.answered(c.conn)
	}
	return res, err
}

// current returns the connections for a new request.
func (p *Connections) current(now time.Time) *generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || now.After(p.now.until) {
		p.retireLocked()
		p.now = &generation{Transport: p.make(), until: now.Add(connectionsLast + rand.N(connectionsSpread))}
	}
	return p.now
}

// replace has the next request use new connections instead of those of g.
func (p *Connections) replace(g *generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == g {
		p.retireLocked()
	}
}

// retireLocked moves the connections in use to the old ones.
func (p *Connections) retireLocked() {
	if p.now == nil {
		return
	}
	const most = 16 // by then, the oldest has no request under way any more
	p.old = append(p.old, p.now.Transport)
	if len(p.old) > most {
		p.old = p.old[1:]
	}
	p.now = nil
	p.closeOldLocked()
}

// closeOldLocked closes those old connections that have no request under way; the last ones close themselves once they
// are idle for 90 s.
func (p *Connections) closeOldLocked() {
	for _, t := range p.old {
		t.CloseIdleConnections()
	}
}

// CloseIdleConnections closes all connections without a request under way.
func (p *Connections) CloseIdleConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeOldLocked()
	if p.now != nil {
		p.now.CloseIdleConnections()
	}
}

// failed notes an answer 5xx, and replaces the connections of g if conn answers nothing else.
func (p *Connections) failed(g *generation, conn net.Conn) {
	now := time.Now()
	if !g.fails(conn, now) {
		return
	}
	p.mu.Lock()
	due := p.now == g && (p.replaced.IsZero() || now.Sub(p.replaced) >= replaceEvery)
	if due {
		p.replaced = now
		p.retireLocked()
	}
	p.mu.Unlock()
}

// fails notes an answer 5xx and reports whether conn answers nothing else.
func (g *generation) fails(conn net.Conn, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failing == nil {
		g.failing = map[net.Conn]failing{}
	}
	f := g.failing[conn]
	if f.tries++; f.tries == 1 {
		f.since = now
	}
	g.failing[conn] = f
	return f.tries >= failingTries || now.Sub(f.since) >= failingFor
}

// answered notes another answer.
func (g *generation) answered(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.failing) > 0 {
		delete(g.failing, conn)
	}
}

// proxyOf returns the proxy function for settings from the environment. Unlike http.ProxyFromEnvironment, which
// ignores a setting that is no URL and connects directly, it fails then. The error does not repeat the setting,
// which may hold a password.
func proxyOf(c *httpproxy.Config) func(*http.Request) (*url.URL, error) {
	valid := func(setting string) bool {
		text := setting
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		u, err := url.Parse(text)
		return setting == "" || err == nil && u.Host != ""
	}
	f, plain, secure := c.ProxyFunc(), valid(c.HTTPProxy), valid(c.HTTPSProxy)
	return func(req *http.Request) (*url.URL, error) {
		switch {
		case req.URL.Scheme == "https" && !secure:
			return nil, errors.New("HTTPS_PROXY is not a URL")
		case req.URL.Scheme == "http" && !plain:
			return nil, errors.New("HTTP_PROXY is not a URL")
		}
		return f(req.URL)
	}
}
