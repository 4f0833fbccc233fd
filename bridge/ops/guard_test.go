package ops_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"plaspy-bridge/bridge/ops"
)

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
			resp, _ := ask(t, http.MethodGet, url+tt.path, says(tt.said))
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

// TestNames: a page of another site cannot read anything here after its name was
// made to resolve to 127.0.0.1. If the bridge cannot know its names, it accepts all.
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
			resp, body := ask(t, http.MethodGet, url+path, says(tt.said))
			if resp.StatusCode != tt.status || tt.status == 200 && body != "feed of "+path {
				t.Errorf("%s on %s with token %q and %q: %d %s, want %d", path, tt.addr, tt.token, tt.said, resp.StatusCode, body, tt.status)
			}
		}
	}
}

// TestLoopback: check and the command sim expect the same as the server.
func TestLoopback(t *testing.T) {
	for hostport, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.9.9.9": true, "[::1]:8080": true, "[::1]": true, "[::ffff:127.0.0.1]:80": true, "localhost:8080": true,
		"LocalHost.:8080": true, "localhost": true, ":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "10.0.0.1:8080": false,
		"localhost.example:80": false, "notlocalhost": false, "": false,
	} {
		if got := ops.Loopback(hostport); got != want {
			t.Errorf("Loopback(%q) = %t", hostport, got)
		}
	}
}
