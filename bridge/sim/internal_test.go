package sim

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"plaspy-bridge/bridge/sim/fleet"
)

// Every post gets an answer in JSON that says yes or no.
func FuzzPost(f *testing.F) {
	f.Add(`{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:05Z","location":{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":2}}`)
	f.Add(`{"from":"2026-01-02","to":"2026-01-03","alertName":"x"}`)
	f.Add(`{"from":"0000-01-01","to":"9999-12-31T23:59:59.999999999+00:00","location":null}`)
	f.Add(`[]`)
	s := New(Options{Devices: 1, Record: 2, History: 4, Profile: fleet.EverySecond})
	tok, _, _ := s.tokens.Issue("sim", "sim-key", s.opts.Start)
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
