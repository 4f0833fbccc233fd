package sim

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"plaspy-bridge/bridge/sim/fleet"
)

// Every id that is sent with all its bytes encoded, or as net/url encodes it,
// arrives; no other path names that device.
func FuzzRoute(f *testing.F) {
	for _, id := range []string{"device1", "a/b", "..", "%2F", "a?b#c", "🚚", "\xff", "\x00", "a//", "+", ""} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		var all strings.Builder
		for _, b := range []byte(id) {
			fmt.Fprintf(&all, "%%%02X", b)
		}
		for _, enc := range []string{all.String(), url.PathEscape(id)} {
			u, err := url.ParseRequestURI("/api/devices/" + enc + "/lastLocation")
			if err != nil {
				t.Fatalf("%q: %v", enc, err)
			}
			e, got := route(u)
			if id == "" {
				if e != unknown {
					t.Fatalf("the empty id is %s", e)
				}
				continue
			}
			if e != lastLocation || got != id {
				t.Fatalf("%q is %s of %q", enc, e, got)
			}
		}
	})
}

// Whatever is posted, the answer is JSON that says yes or no.
func FuzzPost(f *testing.F) {
	f.Add(`{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:05Z","location":{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":2}}`)
	f.Add(`{"from":"2026-01-02","to":"2026-01-03","alertName":"x"}`)
	f.Add(`{"from":"0000-01-01","to":"9999-12-31T23:59:59.999999999+00:00","location":null}`)
	f.Add(`[]`)
	s := New(Options{Devices: 1, Record: 2, History: 4, Profile: fleet.EverySecond})
	tok, _, _ := s.tokens.issue("sim", "sim-key", s.opts.Start)
	f.Fuzz(func(t *testing.T, body string) {
		for _, action := range []string{"locations", "alerts"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/devices/device0001/"+action, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+tok)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			var got struct{ Success *bool }
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Success == nil {
				t.Fatalf("%v: status %d, %s", err, w.Code, w.Body)
			}
			if (w.Code == http.StatusOK) != *got.Success {
				t.Fatalf("status %d, %s", w.Code, w.Body)
			}
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("**", "")
	f.Add("*a*a*b", "aaaaaab")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(text) || len(pattern) > 100 {
			return // regexp, the witness, takes only UTF-8
		}
		quoted := regexp.QuoteMeta(pattern)
		quoted = strings.ReplaceAll(strings.ReplaceAll(quoted, `\*`, `.*`), `\?`, `.`)
		want := regexp.MustCompile(`(?s)\A` + quoted + `\z`).MatchString(text)
		if got := glob(pattern, text); got != want {
			t.Errorf("glob(%q, %q) = %v, want %v", pattern, text, got, want)
		}
	})
}

func FuzzSetMember(f *testing.F) {
	f.Add(`{"a":1,"latitude" : 4.70 ,"b":{"latitude":2}}`)
	f.Add(`{}`)
	f.Add(`[1]`)
	f.Fuzz(func(t *testing.T, object string) {
		if !json.Valid([]byte(object)) {
			return
		}
		got := setMember([]byte(object), "latitude", "91.5")
		if !json.Valid(got) {
			t.Fatalf("%s became %s", object, got)
		}
	})
}

// Old tokens are forgotten, those in use are not.
func TestTokensAreBounded(t *testing.T) {
	s := New(Options{})
	s.tokens.maximum = 3
	var issued []string
	for range 10 {
		tok, _, ok := s.tokens.issue("sim", "sim-key", time.Now())
		if !ok {
			t.Fatal("refused")
		}
		issued = append(issued, tok)
	}
	if n := len(s.tokens.valid) + len(s.tokens.old); n != 3 {
		t.Errorf("got %d tokens kept, want 3", n)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/devices", http.NoBody)
	for i, want := range []int64{0, 10} {
		r.Header.Set("Authorization", "Bearer "+issued[i*9])
		if got := s.tokens.check(r); got != want {
			t.Errorf("got number %d for token %d, want %d", got, i*9+1, want)
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	d := &device{keep: 2}
	for _, key := range []string{"a", "b", "c"} {
		d.remember(key, []byte(key))
	}
	if _, old := d.seen["a"]; old || len(d.seen) != 2 || string(d.seen["c"]) != "c" {
		t.Errorf("got %v, want b and c", d.seen)
	}
}

func TestReachable(t *testing.T) {
	for listened, want := range map[string]string{
		"0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", "127.0.0.1:8090": "127.0.0.1:8090", "[::1]:1": "[::1]:1",
	} {
		a, err := net.ResolveTCPAddr("tcp", listened)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(a); got != want {
			t.Errorf("reachable(%s) = %s, want %s", listened, got, want)
		}
	}
}

// The log has a line per request and nothing secret.
func TestLog(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := New(Options{Devices: 1, APIKey: "very-secret", Log: log})
	body := strings.NewReader(`{"userName":"sim","apiKey":"very-secret"}`)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/Auth/Token", body)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var got struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Token == "" {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if line := b.String(); !strings.Contains(line, "endpoint=token") || !strings.Contains(line, "status=200") ||
		strings.Contains(line, "very-secret") || strings.Contains(line, got.Token) {
		t.Errorf("got %q", line)
	}
}

// The ledger's window against a plain count.
func TestWindow(t *testing.T) {
	var w window
	var times []int64
	peak := 0
	for i := range 5000 {
		now := int64(i) * int64(i%97) * 1e6 // bursts and pauses, sorted below
		if n := len(times); n > 0 {
			now = max(now, times[n-1])
		}
		times = append(times, now)
		w.add(now)
		n := 0
		for _, at := range times {
			if at > now-minute {
				n++
			}
		}
		peak = max(peak, n)
		if w.n != n || w.peak != peak {
			t.Fatalf("at %d: got %d and peak %d, want %d and %d", now, w.n, w.peak, n, peak)
		}
	}
}
