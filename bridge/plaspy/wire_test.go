package plaspy

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/http/httpproxy"

	"plaspy-bridge/auth"
)

func FuzzEscapeID(f *testing.F) {
	for _, seed := range []string{"dev 1", "..", "../x", "a/b", "%2F", "a?b#c", "é😀", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if CheckID(id) != nil {
			return
		}
		u := url.URL{Scheme: "http", Host: "x", Path: "/api/devices/" + id + "/x", RawPath: "/api/devices/" + escapeID(id) + "/x"}
		sent, err := url.ParseRequestURI(u.RequestURI())
		if err != nil {
			t.Fatalf("%q: %v", id, err)
		}
		if sent.Path != u.Path || sent.RawQuery != "" || sent.Fragment != "" {
			t.Errorf("%q arrived as %q", id, sent.Path)
		}
		if got := sent.JoinPath().EscapedPath(); got != u.EscapedPath() {
			t.Errorf("%q: cleaning turned %q into %q", id, u.EscapedPath(), got)
		}
	})
}

// flaky makes a keep-alive server that closes a connection as soon as it is used a second time. net/http hides
// this by sending the request again.
func flaky(t *testing.T) (*httptest.Server, *atomic.Int64) {
	var seen atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/Auth/Token" {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, `{"success":true,"token":"t","expires":"2100-01-01T00:00:00Z"}`)
			return
		}
		if seen.Add(1) == 2 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
			return
		}
		_, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`)
	}))
	t.Cleanup(s.Close)
	return s, &seen
}

func flakyClient(t *testing.T, s *httptest.Server) (*Client, *Budget) {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := Options{BaseURL: u, Budget: NewBudget(60_000, log, nil), Log: log}
	transport := NewTransport(o)
	t.Cleanup(transport.CloseIdleConnections)
	o.Transport = transport
	cfg, err := TokenConfig(o, "user", func() (string, error) { return "key", nil })
	if err != nil {
		t.Fatal(err)
	}
	o.Tokens = auth.New(cfg, log, nil)
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c, o.Budget
}

func TestSilentRepeatOfAGetIsCharged(t *testing.T) {
	s, seen := flaky(t)
	c, budget := flakyClient(t, s)
	var before time.Time
	for range 2 {
		budget.mu.Lock()
		before = budget.slot
		budget.mu.Unlock()
		if _, err := c.LastLocation(t.Context(), "dev", nil); err != nil {
			t.Fatal(err)
		}
	}
	if seen.Load() != 3 {
		t.Fatalf("got %d requests, want net/http to have repeated the second", seen.Load())
	}
	if got := budget.slot.Sub(before); got < 2*budget.spacingLocked(time.Now()) {
		t.Errorf("the slot moved by %v, want two spacings: one request went uncounted", got)
	}
	ok := testutil.ToFloat64(c.wire.metrics.vec.WithLabelValues("last_location", "200"))
	failed := testutil.ToFloat64(c.wire.metrics.vec.WithLabelValues("last_location", "error"))
	if ok != 2 || failed != 1 {
		t.Errorf("got %v answers and %v failures counted, want 2 and 1", ok, failed)
	}
}

func TestPostIsNeverRepeatedSilently(t *testing.T) {
	s, seen := flaky(t)
	c, _ := flakyClient(t, s)
	if _, err := c.LastLocation(t.Context(), "dev", nil); err != nil {
		t.Fatal(err)
	}
	_, err := c.Locations(t.Context(), "dev", []byte(`{}`), PostOptions{IdempotencyKey: "1"})
	if err == nil || Classify(err) != Retry || !IsOutage(err) {
		t.Errorf("got %v, want an error", err)
	}
	if seen.Load() != 2 {
		t.Errorf("got %d requests, want 2: the POST was repeated", seen.Load())
	}
}

// A proxy setting that is no URL is an error, which does not repeat the password that it may hold.
func TestProxy(t *testing.T) {
	for _, tc := range []struct{ setting, want string }{
		{"", ""}, {"http://proxy:3128", "http://proxy:3128"}, {"proxy:3128", "http://proxy:3128"}, {"http://user:s3cret@proxy", "http://user:s3cret@proxy"},
		{"http://user:s3cret%@proxy:80", "is not a URL"}, {"http://user:s3cret@proxy:port", "is not a URL"}, {"http://", "is not a URL"},
	} {
		f := proxyOf(&httpproxy.Config{HTTPSProxy: tc.setting})
		u, err := f(&http.Request{URL: &url.URL{Scheme: "https", Host: "api.example.com"}})
		got := ""
		switch {
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%v shows the password", err)
		case err != nil:
			got = strings.TrimPrefix(err.Error(), "HTTPS_PROXY ")
		case u != nil:
			got = u.String()
		}
		if got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.setting, got, tc.want)
		}
	}
}

func TestConnectionsHaveAGreatestAge(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	p := newConnections(4, time.Minute, nil)
	defer p.CloseIdleConnections()
	if !p.watch {
		t.Error("requests of a minute are not watched")
	}
	if h := p.make().HTTP2; h.SendPingTimeout+h.PingTimeout > 15*time.Second || h.PingTimeout == 0 {
		t.Errorf("HTTP/2 pings: %+v", h)
	}
	for want := range int64(5) {
		for range 3 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := p.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		if got := conns.Load(); got != want+1 {
			t.Errorf("%d connections, want %d", got, want+1)
		}
		if left := time.Until(p.now.until); left < connectionsLast-time.Minute || left > connectionsLast+connectionsSpread {
			t.Errorf("connections last for %v", left)
		}
		p.now.until = time.Now().Add(-time.Second)
	}
}
