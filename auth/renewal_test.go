package auth_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth"
)

func TestRunRenewsAhead(t *testing.T) {
	for _, tc := range []struct {
		name        string
		life, ahead time.Duration
	}{
		{"an hour", time.Hour, 0},
		{"a minute", time.Minute, 0},
		{"three seconds", 3 * time.Second, 0},
		{"server a day ahead", time.Minute, 24 * time.Hour},
		{"server a day behind", time.Minute, -24 * time.Hour},
		{"server 100 s behind, expires in our past", time.Minute, -100 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(tc.life)
				a.ahead = tc.ahead
				m, _ := newManager(t, a)
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- m.Run(ctx) }()
				tr := &auth.Transport{Source: m, Base: a}
				const lives = 20
				for range lives * 10 {
					time.Sleep(tc.life / 10)
					if res := call(t, tr); res.StatusCode != 200 {
						t.Fatalf("got status %d: an expired token was sent", res.StatusCode)
					}
				}
				cancel()
				if err := <-ran; err != nil {
					t.Error(err)
				}
				if got := len(a.calls); got != lives*10 {
					t.Errorf("got %d calls, want %d: some were replayed", got, lives*10)
				}
				// A life is shortened by a second if the clocks differ.
				low, high := lives*100/86, lives*100/74+2
				if tc.ahead != 0 {
					high += lives / 10
				}
				if got := a.tokenRequests(); got < low || got > high {
					t.Errorf("got %d token requests in %d lives, want %d to %d", got, lives, low, high)
				}
			})
		})
	}
}

func TestLazyWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Minute)
		m, _ := newManager(t, a)
		tr := &auth.Transport{Source: m, Base: a}
		for range 5 {
			if res := call(t, tr); res.StatusCode != 200 {
				t.Fatalf("got status %d", res.StatusCode)
			}
			time.Sleep(2 * time.Minute)
		}
		if got := a.tokenRequests(); got != 5 {
			t.Errorf("got %d token requests, want one for each expired token", got)
		}
		if len(a.calls) != 5 {
			t.Errorf("got %d calls, want 5: an expired token was sent", len(a.calls))
		}
	})
}

func TestOldTokenServesWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(100 * time.Second)
		a.token = func(n int, _ *http.Request) *http.Response {
			if n > 1 && n < 5 {
				return answer(500, "oops")
			}
			return nil
		}
		m, l := newManager(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.Run(ctx) }()
		first, err := m.Token(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(86 * time.Second)
		if got, err := m.Token(ctx); err != nil || got != first && a.tokenRequests() < 5 {
			t.Errorf("got another token or %v while the first one lasts", err)
		}
		time.Sleep(10 * time.Second)
		if got, err := m.Token(ctx); err != nil || got == first {
			t.Errorf("got %v, want the renewed token", err)
		}
		if got := l.count(t, "token request failed, retrying"); got != 1 {
			t.Errorf("got %d lines for the failure, want 1", got)
		}
		if got := l.count(t, "token requests succeed again"); got != 1 {
			t.Errorf("got %d lines for its end, want 1", got)
		}
	})
}

func TestUnprovenTokensAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		bad := true
		a.resource = func(int, *http.Request, bool) *http.Response {
			if bad {
				return answer(401, "")
			}
			return nil
		}
		m, l := newManager(t, a)
		tr := &auth.Transport{Source: m, Base: a}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := tr.RoundTrip(req); err == nil && res.StatusCode != 401 {
				t.Errorf("got status %d", res.StatusCode)
			}
			time.Sleep(time.Millisecond)
		}
		checkSlow(t, a.tokens[1:], time.Second) // the first one is replaced at once
		if got := l.count(t, "spacing out"); got != 1 {
			t.Errorf("got %d lines, want 1", got)
		}
		bad = false
		call(t, tr)
		a.revoke()
		start := time.Now()
		call(t, tr)
		if got := time.Since(start); got != 0 {
			t.Errorf("after a success a refused token is replaced after %v, want at once", got)
		}
		if got := l.count(t, "tokens are accepted again"); got != 1 {
			t.Errorf("got %d lines for the end, want 1", got)
		}
	})
}

func TestRenewOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newManager(t, newAPI(time.Hour))
		if m.Renew(auth.Token{}) {
			t.Error("no token was renewed")
		}
		for i, want := range []bool{true, false, true} {
			first, err := m.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Renew([]auth.Token{{}, first, first}[i]); got != want {
				t.Errorf("call %d: got %v, want %v", i, got, want)
			}
			if second, err := m.Token(t.Context()); err != nil || (second != first) != want {
				t.Errorf("call %d: other token: %v, %v", i, second != first, err)
			}
			time.Sleep(30 * time.Second)
		}
	})
}
