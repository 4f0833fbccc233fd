package ops_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/ops"
)

// start serves on a loopback port of its own, or on addr, until the test ends,
// and returns the URL to ask.
func start(t *testing.T, addr string, o ops.Options) (*ops.Server, string) {
	t.Helper()
	if o.Health == nil {
		o.Health = ops.NewHealth()
	}
	o.Log = slog.New(slog.DiscardHandler)
	o.Gatherer = ops.NewRegistry(o.Health)
	listener, err := ops.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	s := ops.New(listener, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return s, "http://127.0.0.1:" + port
}

// ask makes one request and returns the answer with its body read.
func ask(t *testing.T, method, url string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestProbes(t *testing.T) {
	h := ops.NewHealth()
	_, url := start(t, "127.0.0.1:0", ops.Options{Health: h})
	tests := []struct {
		name, path string
		do         func()
		status     int
		says       string
	}{
		{"not ready", "/readyz", func() { h.Report("token", ops.Down("key refused")) }, 503, `"reason": "key refused"`},
		{"lives all the same", "/livez", func() {}, 200, `"live": true`},
		{"ready", "/readyz", func() { h.Report("token", ops.Up()) }, 200, `"ready": true`},
		{"stuck", "/livez", func() { h.Progress("polls", -1) }, 503, `"polls"`},
		{"ready all the same", "/readyz", func() {}, 200, `"ready": true`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.do()
			resp, body := ask(t, http.MethodGet, url+tt.path, nil)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) || !json.Valid([]byte(body)) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, body, tt.status, tt.says)
			}
		})
	}
}

// TestSecondLook: a process that was stopped shows within the second look that it
// lives.
func TestSecondLook(t *testing.T) {
	h := ops.NewHealth()
	h.Progress("polls", -1)
	_, url := start(t, "127.0.0.1:0", ops.Options{Health: h})
	time.AfterFunc(100*time.Millisecond, func() { h.Progress("polls", time.Hour) })
	if resp, body := ask(t, http.MethodGet, url+"/livez", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestReadyJSON(t *testing.T) {
	h := ops.NewHealth()
	h.Report("nats", ops.Down("no server at nats://h"))
	_, url := start(t, "127.0.0.1:0", ops.Options{Health: h})
	_, body := ask(t, http.MethodGet, url+"/readyz", nil)
	got := regexp.MustCompile(`"since": "[^"]+Z"`).ReplaceAllString(body, `"since": "T"`)
	want := `{
  "ready": false,
  "parts": {
    "nats": {
      "ok": false,
      "reason": "no server at nats://h",
      "since": "T"
    }
  }
}
`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMetrics(t *testing.T) {
	h := ops.NewHealth()
	h.Report("nats", ops.Up())
	_, url := start(t, "127.0.0.1:0", ops.Options{Health: h})
	resp, body := ask(t, http.MethodGet, url+"/metrics", nil)
	for _, want := range []string{"\nplaspy_bridge_ready 1\n", "\ngo_goroutines ", "\nprocess_open_fds "} {
		if !strings.Contains(body, want) {
			t.Errorf("%d without %q", resp.StatusCode, want)
		}
	}
}

func TestMethods(t *testing.T) {
	_, url := start(t, "127.0.0.1:0", ops.Options{Pprof: true})
	for _, path := range []string{"/", "/livez", "/readyz", "/metrics", "/debug/pprof/", "/elsewhere"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodTrace} {
			if resp, _ := ask(t, method, url+path, nil); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, resp.StatusCode, resp.Header.Get("Allow"))
			}
		}
	}
	if resp, body := ask(t, http.MethodHead, url+"/", nil); resp.StatusCode != 200 || body != "" {
		t.Errorf("HEAD /: %d %q", resp.StatusCode, body)
	}
}

func TestHeaders(t *testing.T) {
	_, url := start(t, "127.0.0.1:0", ops.Options{})
	for _, path := range []string{"/", "/livez", "/readyz", "/metrics", "/elsewhere"} {
		resp, _ := ask(t, http.MethodGet, url+path, nil)
		if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" ||
			resp.Header.Get("X-Frame-Options") != "DENY" || resp.Header.Get("Referrer-Policy") != "no-referrer" ||
			resp.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" || resp.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: %v", path, resp.Header)
		}
	}
}

// Profiles show memory, so that they are as closed as the live view.
func TestPprof(t *testing.T) {
	tests := []struct {
		name, addr, path, token, said string
		on                            bool
		status                        int
	}{
		{"off, index", "127.0.0.1:0", "/debug/pprof/", "", "", false, 404},
		{"off, heap", "127.0.0.1:0", "/debug/pprof/heap", "", "", false, 404},
		{"on, index", "127.0.0.1:0", "/debug/pprof/", "", "", true, 200},
		{"on, heap", "127.0.0.1:0", "/debug/pprof/heap", "", "", true, 200},
		{"on, arguments", "127.0.0.1:0", "/debug/pprof/cmdline", "", "", true, 404},
		{"off loopback, no token", "0.0.0.0:0", "/debug/pprof/heap", "", "", true, 403},
		{"off loopback, token not sent", "0.0.0.0:0", "/debug/pprof/heap", "s3cret", "", true, 401},
		{"off loopback, wrong token", "0.0.0.0:0", "/debug/pprof/trace", "s3cret", "other", true, 401},
		{"off loopback, right token", "0.0.0.0:0", "/debug/pprof/heap", "s3cret", "s3cret", true, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, url := start(t, tt.addr, ops.Options{Pprof: tt.on, Token: tt.token})
			resp, _ := ask(t, http.MethodGet, url+tt.path, func(r *http.Request) {
				if tt.said != "" {
					r.Header.Set("Authorization", "Bearer "+tt.said)
				}
			})
			if resp.StatusCode != tt.status {
				t.Errorf("%d, want %d", resp.StatusCode, tt.status)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	bearer := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	host := func(value string) func(*http.Request) { return func(r *http.Request) { r.Host = value } }
	tests := []struct {
		name, addr, token string
		change            func(*http.Request)
		status            int
		says              string
	}{
		{"loopback, no token", "127.0.0.1:0", "", nil, 200, "plaspy-bridge"},
		{"loopback by name", "127.0.0.1:0", "", host("localhost:8080"), 200, "plaspy-bridge"},
		{"loopback of IPv6", "127.0.0.1:0", "", host("[::1]:8080"), 200, "plaspy-bridge"},
		{"a name that was made to resolve to loopback", "127.0.0.1:0", "", host("evil.example:8080"), 403, "loopback"},
		{"a name that begins like loopback", "127.0.0.1:0", "", host("127.0.0.1.evil.example"), 403, "loopback"},
		{"every interface, no token", "0.0.0.0:0", "", nil, 403, "BRIDGE_HTTP_TOKEN"},
		{"every interface, no token, a token sent", "0.0.0.0:0", "", bearer("Bearer "), 403, "BRIDGE_HTTP_TOKEN"},
		{"token missing", "127.0.0.1:0", "s3cret", nil, 401, "BRIDGE_HTTP_TOKEN"},
		{"token wrong", "127.0.0.1:0", "s3cret", bearer("Bearer s3cre"), 401, ""},
		{"token too long", "127.0.0.1:0", "s3cret", bearer("Bearer s3crets"), 401, ""},
		{"token under another scheme", "127.0.0.1:0", "s3cret", bearer("Digest s3cret"), 401, ""},
		{"token bare", "127.0.0.1:0", "s3cret", bearer("s3cret"), 401, ""},
		{"token right", "127.0.0.1:0", "s3cret", bearer("Bearer s3cret"), 200, "plaspy-bridge"},
		{"scheme in lower case", "127.0.0.1:0", "s3cret", bearer("bearer s3cret"), 200, "plaspy-bridge"},
		{"token right off loopback", "0.0.0.0:0", "s3cret", bearer("Bearer s3cret"), 200, "plaspy-bridge"},
		{"token as password", "0.0.0.0:0", "s3cret", func(r *http.Request) { r.SetBasicAuth("me", "s3cret") }, 200, "plaspy-bridge"},
		{"token as user name", "0.0.0.0:0", "s3cret", func(r *http.Request) { r.SetBasicAuth("s3cret", "") }, 401, ""},
		{"token in the query", "127.0.0.1:0", "s3cret", func(r *http.Request) { r.URL.RawQuery = "token=s3cret&access_token=s3cret" }, 401, ""},
		{"token in a cookie", "127.0.0.1:0", "s3cret", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "token", Value: "s3cret"}) }, 401, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, url := start(t, tt.addr, ops.Options{Token: tt.token})
			resp, body := ask(t, http.MethodGet, url+"/", tt.change)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("%d %s, want %d with %q", resp.StatusCode, body, tt.status, tt.says)
			}
			if strings.Contains(body, "s3cret") {
				t.Errorf("the token shows: %s", body)
			}
			if challenged := len(resp.Header.Values("WWW-Authenticate")) > 0; challenged != (tt.status == 401) {
				t.Errorf("WWW-Authenticate %q under %d", resp.Header.Values("WWW-Authenticate"), resp.StatusCode)
			}
			for _, path := range []string{"/livez", "/readyz", "/metrics"} {
				if resp, _ := ask(t, http.MethodGet, url+path, nil); resp.StatusCode == 401 || resp.StatusCode == 403 {
					t.Errorf("%s is closed: %d", path, resp.StatusCode)
				}
			}
		})
	}
}

// TestNames: a page of another site whose name was made to resolve to 127.0.0.1
// reads nothing here; where names are not the bridge's to know, all are good.
func TestNames(t *testing.T) {
	tests := []struct {
		name, addr, token, host string
		status                  int
	}{
		{"address", "127.0.0.1:0", "", "127.0.0.1:8080", 200},
		{"another address", "127.0.0.1:0", "", "10.1.2.3:8080", 200},
		{"IPv6", "127.0.0.1:0", "", "[::1]:8080", 200},
		{"IPv6 without port", "127.0.0.1:0", "", "[::1]", 200},
		{"localhost", "127.0.0.1:0", "", "localhost", 200},
		{"a bare name", "127.0.0.1:0", "", "node7:8080", 200},
		{"a rebound name", "127.0.0.1:0", "", "evil.example:8080", 403},
		{"a rebound name, rooted", "127.0.0.1:0", "", "evil.example.:8080", 403},
		{"like an address", "127.0.0.1:0", "", "127.0.0.1.evil.example:8080", 403},
		{"with brackets", "127.0.0.1:0", "", "[evil.example]:8080", 403},
		{"behind a proxy", "127.0.0.1:0", "s3cret", "bridge.example", 200},
		{"on every interface", "0.0.0.0:0", "", "bridge.example:8080", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := ops.NewHealth()
			h.Report("token", ops.Up())
			_, url := start(t, tt.addr, ops.Options{Health: h, Token: tt.token, Pprof: true})
			for _, path := range []string{"/readyz", "/livez", "/metrics"} {
				resp, body := ask(t, http.MethodGet, url+path, func(r *http.Request) { r.Host = tt.host })
				if resp.StatusCode != tt.status || tt.status == 403 && !strings.Contains(body, "loopback") {
					t.Errorf("%s: %d %.80s, want %d", path, resp.StatusCode, body, tt.status)
				}
			}
		})
	}
}

func TestStatusPage(t *testing.T) {
	h := ops.NewHealth()
	h.Report("devices", ops.Down(`<script>alert("x")</script>`))
	h.Report("nats", ops.Degraded("slow"))
	h.Progress("polls", time.Minute)
	h.Progress("acks", time.Minute).Idle()
	_, url := start(t, "127.0.0.1:0", ops.Options{
		Health: h, Version: "v1.2.3",
		Counts: func() []ops.Count { return []ops.Count{{Name: "changes <b>", Value: "42"}} },
	})
	resp, body := ask(t, http.MethodGet, url+"/", nil)
	for _, want := range []string{
		"not ready", "&lt;script&gt;", `<span class="odd">works, but</span>: slow`, "changes &lt;b&gt;", "42", "v1.2.3",
		"nothing to do", `s ago</span>, at most 60 s`, `href="/metrics"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page:\n%s", want, body)
		}
	}
	// The browser applies the style only if its digest is the policy's.
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	if style == nil {
		t.Fatal("no style on the page")
	}
	digest := sha256.Sum256([]byte(style[1]))
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, base64.StdEncoding.EncodeToString(digest[:])) {
		t.Errorf("policy %s does not allow the style", policy)
	}
	if resp, _ := ask(t, http.MethodGet, url+"/elsewhere", nil); resp.StatusCode != 404 {
		t.Errorf("/elsewhere: %d", resp.StatusCode)
	}
}

func TestViewTakesThePlaceOfThePage(t *testing.T) {
	view := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "view of "+r.URL.Path) })
	_, url := start(t, "0.0.0.0:0", ops.Options{View: view, Token: "s3cret"})
	if resp, _ := ask(t, http.MethodGet, url+"/events", nil); resp.StatusCode != 401 {
		t.Errorf("without token: %d", resp.StatusCode)
	}
	if _, body := ask(t, http.MethodGet, url+"/events", func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3cret") }); body != "view of /events" {
		t.Errorf("with token: %s", body)
	}
}

// TestShutdownEndsStreams holds a stream of events open, past the header timeout's
// worth of reading deadlines, and stops the server under it.
func TestShutdownEndsStreams(t *testing.T) {
	ended := make(chan struct{})
	view := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		_, _ = io.WriteString(w, "begun\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s, url := start(t, "127.0.0.1:0", ops.Options{View: view})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "begun\n" {
		t.Fatalf("%q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-ended
}

// TestShutdownWithoutARequest stops the server under connections without a request,
// one of which has been used before. net/http waits 5 s for a new one.
func TestShutdownWithoutARequest(t *testing.T) {
	s, _ := start(t, "127.0.0.1:0", ops.Options{})
	conns := make([]net.Conn, 3)
	for i := range conns {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	// The last connection was accepted after the others.
	if _, err := io.WriteString(conns[2], "GET /livez HTTP/1.1\r\nHost: "+s.Addr()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conns[2]).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the stop took %v", took)
	}
	for i, c := range conns[:2] {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("connection %d: %v, want it closed", i, err)
		}
	}
}

func TestShutdownBeforeServeAndTwice(t *testing.T) {
	listener, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := ops.NewHealth()
	s := ops.New(listener, ops.Options{Health: h, Gatherer: ops.NewRegistry(h), Log: slog.New(slog.DiscardHandler)})
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Serve(); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	again, err := ops.Listen(t.Context(), s.Addr())
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	_ = again.Close()
}

func TestServeTellsOfALostListener(t *testing.T) {
	listener, err := ops.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := ops.NewHealth()
	s := ops.New(listener, ops.Options{Health: h, Gatherer: ops.NewRegistry(h), Log: slog.New(slog.DiscardHandler)})
	_ = listener.Close()
	if err := s.Serve(); err == nil {
		t.Error("Serve on a closed listener: no error")
	}
}

// The feed is as closed as the live view.
func TestFeedIsGuarded(t *testing.T) {
	feed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "feed of ", r.URL.Path) })
	for _, path := range []string{"/devices.geojson", "/events"} {
		for _, tt := range []struct {
			addr, token, said string
			status            int
		}{
			{"127.0.0.1:0", "", "", 200},
			{"127.0.0.1:0", "s3cret", "", 401},
			{"127.0.0.1:0", "s3cret", "other", 401},
			{"127.0.0.1:0", "s3cret", "s3cret", 200},
			{"0.0.0.0:0", "", "", 403},
			{"0.0.0.0:0", "s3cret", "s3cret", 200},
		} {
			_, url := start(t, tt.addr, ops.Options{Feed: feed, Token: tt.token})
			resp, body := ask(t, http.MethodGet, url+path, func(r *http.Request) {
				if tt.said != "" {
					r.Header.Set("Authorization", "Bearer "+tt.said)
				}
			})
			if resp.StatusCode != tt.status || tt.status == 200 && body != "feed of "+path {
				t.Errorf("%s on %s with token %q and %q: %d %s, want %d", path, tt.addr, tt.token, tt.said, resp.StatusCode, body, tt.status)
			}
		}
	}
}

func TestOpenMetrics(t *testing.T) {
	_, url := start(t, "127.0.0.1:0", ops.Options{})
	resp, body := ask(t, http.MethodGet, url+"/metrics", func(r *http.Request) {
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	})
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("%v, ends with %q", resp.Header, body[max(0, len(body)-20):])
	}
}
