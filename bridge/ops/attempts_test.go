package ops

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// locked is a page behind a token, asked from an address.
func locked(log *slog.Logger) func(t *testing.T, remote, token string) *httptest.ResponseRecorder {
	page := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	h := newGuard("s3cret", &net.TCPAddr{}, log).of(page, "The page")
	return func(t *testing.T, remote, token string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		if token != "" {
			r.SetBasicAuth("me", token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ask := locked(slog.New(slog.NewTextHandler(&log, nil)))
		const here, there = "192.0.2.1:1000", "192.0.2.2:1000"
		for i := range guessesAtOnce {
			if got := ask(t, here, fmt.Sprint("guess ", i)).Code; got != 401 {
				t.Fatalf("guess %d: %d, want 401", i, got)
			}
		}
		held := ask(t, "192.0.2.1:2000", "another guess")
		if held.Code != 429 || held.Header().Get("Retry-After") == "" || held.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("after %d wrong ones: %d %v, want 429", guessesAtOnce, held.Code, held.Header())
		}
		if got := ask(t, here, "").Code; got != 401 {
			t.Errorf("without a token: %d, want 401, so that a browser asks for it", got)
		}
		if got := ask(t, here, "s3cret").Code; got != 200 {
			t.Errorf("the right one from the same address: %d, want 200: it may be a proxy's", got)
		}
		if got := ask(t, there, "s3cret").Code; got != 200 {
			t.Errorf("another address: %d, want 200", got)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || strings.Contains(log.String(), "guess ") || strings.Contains(log.String(), "s3cret") {
			t.Errorf("logged %d lines, want one without any token: %s", n, log.String())
		}
		// Over a minute, from many connections, no more than the pace allows.
		var looked atomic.Int64
		end := time.Now().Add(time.Minute)
		var wg sync.WaitGroup
		for i := range 2 * turnsWaiting {
			wg.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					begun := time.Now()
					ask(t, here, fmt.Sprint("again ", i, n))
					if time.Since(begun) > 0 {
						looked.Add(1)
					} else {
						time.Sleep(turnEvery) // refused unseen
					}
				}
			})
		}
		wg.Wait()
		if n, most := looked.Load(), int64(time.Minute/turnEvery)+guessesAtOnce+2*turnsWaiting; n > most || n < most/2 {
			t.Errorf("%d guesses in a minute, want at most %d", n, most)
		}
	})
}

func TestOneWrongTokenAgainAndAgain(t *testing.T) {
	ask := locked(slog.New(slog.DiscardHandler))
	for range 5 * guessesAtOnce {
		if got := ask(t, "192.0.2.1:1", "old token").Code; got != 401 {
			t.Fatalf("%d, want 401: it is a page that does not know of the new token", got)
		}
		if got := ask(t, "192.0.2.1:1", "").Code; got != 401 {
			t.Fatalf("without a token: %d, want 401", got)
		}
	}
	if got := ask(t, "192.0.2.1:1", "s3cret").Code; got != 200 {
		t.Errorf("the right one: %d, want 200", got)
	}
}

// TestManyGuessers checks that the number of remembered addresses is bounded, and that
// further ones share the guesses of one.
func TestManyGuessers(t *testing.T) {
	a := newAttempts(slog.New(slog.DiscardHandler))
	now := time.Now()
	remote := func(i int) string { return fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255) }
	for i := range 3 * guessersKnown {
		a.wrong(remote(i), [32]byte{byte(i), byte(i >> 8), 1}, now)
	}
	if len(a.known) > guessersKnown+1 {
		t.Errorf("%d addresses are remembered, want %d at most", len(a.known), guessersKnown)
	}
	if a.wrong(remote(1<<20), [32]byte{8}, now) == 0 {
		t.Error("a new address has a guess left although the memory is full")
	}
	if a.wrong(remote(0), [32]byte{8}, now) != 0 {
		t.Error("an address with a single wrong token has no guess left")
	}
	later := now.Add(3 * guessersKnown * guessEvery)
	a.wrong(remote(1<<20), [32]byte{9}, later)
	if wait, ok := a.turn(remote(1<<21), later); len(a.known) > 1 || wait != 0 || !ok {
		t.Errorf("%d addresses are remembered when all but one are harmless", len(a.known))
	}
}

func TestNetwork(t *testing.T) {
	tests := []struct{ remote, want string }{
		{"192.0.2.1:80", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:80", "fe80::/64"},
		{"@", "invalid Prefix"},
	}
	for _, tt := range tests {
		t.Run(tt.remote, func(t *testing.T) {
			if got := network(tt.remote).String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
