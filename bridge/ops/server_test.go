package ops_test

import (
	"context"
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
// and returns the URL to ask. Without a view, the page is a line of text.
func start(t *testing.T, addr string, o ops.Options) (*ops.Server, string) {
	t.Helper()
	if o.Health == nil {
		o.Health = ops.NewHealth()
	}
	if o.View == nil {
		o.View = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				http.NotFound(w, r)
				return
			}
			_, _ = io.WriteString(w, "plaspy-bridge")
		})
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
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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

// says sends a bearer token, unless it is empty.
func says(token string) func(*http.Request) {
	return func(r *http.Request) {
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
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

// TestSecondLook: a process that was paused is alive at the second look.
func TestSecondLook(t *testing.T) {
	t.Parallel()
	h := ops.NewHealth()
	_, url := start(t, "127.0.0.1:0", ops.Options{Health: h})
	said := ""
	for range 5 { // a busy machine may take the second look first
		h.Progress("polls", -1)
		beat := time.AfterFunc(100*time.Millisecond, func() { h.Progress("polls", time.Hour) })
		resp, body := ask(t, http.MethodGet, url+"/livez", nil)
		if resp.StatusCode == http.StatusOK && !beat.Stop() {
			return
		}
		said = fmt.Sprint(resp.StatusCode, " ", body)
	}
	t.Error(said)
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

func TestOpenMetrics(t *testing.T) {
	_, url := start(t, "127.0.0.1:0", ops.Options{})
	resp, body := ask(t, http.MethodGet, url+"/metrics", func(r *http.Request) {
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	})
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("%v, ends with %q", resp.Header, body[max(0, len(body)-20):])
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

func TestViewNeedsTheToken(t *testing.T) {
	view := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "view of "+r.URL.Path) })
	_, url := start(t, "0.0.0.0:0", ops.Options{View: view, Token: "s3cret"})
	if resp, _ := ask(t, http.MethodGet, url+"/events", nil); resp.StatusCode != 401 {
		t.Errorf("without token: %d", resp.StatusCode)
	}
	if _, body := ask(t, http.MethodGet, url+"/events", says("s3cret")); body != "view of /events" {
		t.Errorf("with token: %s", body)
	}
}
