package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth"
)

func TestManyWaitersOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.delay = time.Second
		m, _ := newManager(t, a)
		var wg sync.WaitGroup
		tokens := make([]auth.Token, 1000)
		for i := range tokens {
			wg.Go(func() {
				var err error
				if tokens[i], err = m.Token(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := a.tokenRequests(); got != 1 {
			t.Errorf("got %d token requests, want 1", got)
		}
		for i, tok := range tokens {
			if tok != tokens[0] {
				t.Fatalf("waiter %d got another token", i)
			}
		}
	})
}

func TestWaiterLeaves(t *testing.T) {
	for _, tc := range []struct {
		name  string
		first time.Duration // when the first waiter leaves; the second one stays
	}{{"before the answer", 500 * time.Millisecond}, {"at once", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(time.Hour)
				a.delay = time.Second
				m, _ := newManager(t, a)
				ctx, cancel := context.WithTimeout(t.Context(), tc.first)
				defer cancel()
				left := make(chan error, 1)
				go func() { _, err := m.Token(ctx); left <- err }()
				synctest.Wait()
				if _, err := m.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-left; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the waiter's own deadline", err)
				}
				if got := a.tokenRequests(); got != 1 {
					t.Errorf("got %d token requests, want 1", got)
				}
			})
		})
	}
}

func TestLastWaiterEndsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		ended := make(chan time.Time, 10)
		m, _ := newManager(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			_, _ = a.RoundTrip(r)
			<-r.Context().Done()
			ended <- time.Now()
			return nil, r.Context().Err()
		}))
		start := time.Now()
		for range 10 { // callers with little patience must not make a request each
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := m.Token(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := (<-ended).Sub(start); got != 100*time.Millisecond {
			t.Errorf("request ended after %v, want with its last waiter", got)
		}
		if got := a.tokenRequests(); got != 1 {
			t.Errorf("got %d token requests within a second, want 1", got)
		}
	})
}

func TestRefusedKey(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"success false under 200", `{"success":false,"error":"Invalid API key or username."}`, 200},
		{"success false under 201", `{"success":false}`, 201},
		{"400", `{"success":false,"error":"Invalid API key or username."}`, 400},
		{"401 without JSON", `Invalid API key or username.`, 401},
		{"403 with HTML", `<html>`, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(time.Hour)
				a.token = func(int, *http.Request) *http.Response { return answer(tc.status, tc.body) }
				m, l := newManager(t, a)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						_, err := m.Token(ctx)
						if e, ok := errors.AsType[*auth.Error](err); !ok || !e.Refused || !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("got %v, want the deadline and the refusal", err)
						}
					})
				}
				wg.Wait()
				checkSlow(t, a.tokens, 5*time.Second)
				if s := m.State(); s.Held || !s.Refused || !strings.Contains(s.Err, "key refused") {
					t.Errorf("got state %+v", s)
				}
				if got := l.count(t, "API key refused"); got != 1 {
					t.Errorf("got %d lines, want 1", got)
				}
			})
		})
	}
}

// checkSlow expects gaps that begin with first, about double and end at two minutes at most, for an hour.
func checkSlow(t *testing.T, at []time.Time, first time.Duration) {
	t.Helper()
	want := first
	for i := 1; i < len(at); i++ {
		got := at[i].Sub(at[i-1])
		if got > want+2*time.Second || got < want*3/4 {
			t.Errorf("gap %d is %v, want %v to %v", i, got, want*3/4, want)
		}
		want = min(want*2, 2*time.Minute)
	}
	if len(at) < 30 || len(at) > 45 {
		t.Errorf("got %d requests in an hour, want 30 to 45", len(at))
	}
}

func TestRetryEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		key := "old"
		a.token = func(_ int, r *http.Request) *http.Response {
			var sent struct{ APIKey string }
			if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
				t.Error(err)
			}
			if sent.APIKey != "new" {
				return answer(200, `{"success":false,"error":"Invalid API key or username."}`)
			}
			return nil
		}
		m, l := newManager(t, a, func(c *auth.Config) { c.Key = func() (string, error) { return key, nil } })
		got := make(chan time.Time, 1)
		go func() {
			if _, err := m.Token(t.Context()); err != nil {
				t.Error(err)
			}
			got <- time.Now()
		}()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		key = "new"
		changed := time.Now()
		m.Retry()
		if waited := (<-got).Sub(changed); waited != 0 {
			t.Errorf("the new key was used after %v, want at once", waited)
		}
		if s := m.State(); s.Refused || s.Err != "" || !s.Held {
			t.Errorf("got state %+v", s)
		}
		if n := l.count(t, "token requests succeed again"); n != 1 {
			t.Errorf("got %d lines for the end, want 1", n)
		}
	})
}

func TestRetryDuringARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.delay = time.Second
		a.token = func(n int, _ *http.Request) *http.Response {
			if n == 1 {
				return answer(401, "")
			}
			return nil
		}
		m, _ := newManager(t, a)
		start := time.Now()
		time.AfterFunc(500*time.Millisecond, m.Retry)
		if _, err := m.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("got a token after %v, want 2s: the key that was refused was not the new one", got)
		}
	})
}

func TestTransientFailures(t *testing.T) {
	for _, tc := range []struct {
		name     string
		res      func() (*http.Response, error)
		min, max time.Duration // from the first request to the second
		want     string
	}{
		{"500", func() (*http.Response, error) { return answer(500, ""), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "status 500"},
		{"429 asks for a minute", func() (*http.Response, error) {
			return answer(429, `{"success":false,"error":"slow down"}`, "Retry-After", "60"), nil
		}, time.Minute, time.Minute, "slow down (status 429)"},
		{"503 with a date", func() (*http.Response, error) {
			return answer(503, "", "Retry-After", time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat)), nil
		}, 89 * time.Second, 90 * time.Second, "status 503"},
		{"absurd Retry-After", func() (*http.Response, error) {
			return answer(503, "", "Retry-After", "99999999999999999"), nil
		}, time.Hour, time.Hour, "status 503"},
		{"transport error", func() (*http.Response, error) { return nil, errors.New("connection refused") }, 500 * time.Millisecond, 500 * time.Millisecond, "connection refused"},
		{"empty", func() (*http.Response, error) { return answer(200, ""), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "empty answer"},
		{"HTML", func() (*http.Response, error) { return answer(200, "<html>login</html>"), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "HTML"},
		{"wrong type", func() (*http.Response, error) { return answer(200, `[]`), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "not a JSON object"},
		{"token of a wrong type", func() (*http.Response, error) { return answer(200, `{"success":true,"token":1}`), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "without a token"},
		{"success of a wrong type", func() (*http.Response, error) { return answer(200, `{"success":"yes","token":"a"}`), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "neither true nor false"},
		{"token with a line break", func() (*http.Response, error) { return answer(200, `{"success":true,"token":"a\nb"}`), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "cannot be sent"},
		{"too large", func() (*http.Response, error) { return answer(200, strings.Repeat(" ", 1<<20)), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "64 KiB"},
		{"uncontrolled error", func() (*http.Response, error) {
			return answer(500, `{"success":false,"error":"uncontrolled error"}`), nil
		}, 500 * time.Millisecond, 500 * time.Millisecond, "uncontrolled error (status 500)"},
		{"not found", func() (*http.Response, error) { return answer(404, `{"success":false}`), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "is PLASPY_BASE_URL the root"},
		{"no such method", func() (*http.Response, error) { return answer(405, "<html>"), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "is PLASPY_BASE_URL the root"},
		{"conflict", func() (*http.Response, error) {
			return answer(409, `{"success":false,"error":"Invalid API key or username."}`), nil
		}, 500 * time.Millisecond, 500 * time.Millisecond, "token request: Invalid"},
		{"request timeout", func() (*http.Response, error) { return answer(408, ""), nil }, 500 * time.Millisecond, 500 * time.Millisecond, "status 408"},
		{"redirect", func() (*http.Response, error) {
			return answer(302, "", "Location", "https://evil.example.com/x?y"), nil
		}, 500 * time.Millisecond, 500 * time.Millisecond, "redirected to https://evil.example.com,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(time.Hour)
				m, _ := newManager(t, roundTripper(func(r *http.Request) (*http.Response, error) {
					res, err := a.RoundTrip(r)
					if a.tokenRequests() == 1 {
						return tc.res()
					}
					return res, err
				}))
				if _, err := m.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := a.tokens[1].Sub(a.tokens[0]); got < tc.min || got > tc.max {
					t.Errorf("second request after %v, want %v to %v", got, tc.min, tc.max)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				m, _ := newManager(t, roundTripper(func(*http.Request) (*http.Response, error) { return tc.res() }))
				err := m.Try(t.Context())
				if e, ok := errors.AsType[*auth.Error](err); !ok || e.Refused || !strings.Contains(e.Error(), tc.want) {
					t.Errorf("got %v, want an error with %q", err, tc.want)
				}
			})
		})
	}
}

func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.delay = 24 * time.Hour
		m, _ := newManager(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := m.Token(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v, want the deadline after a minute", err, time.Since(start))
		}
		if got := a.tokenRequests(); got < 4 || got > 6 {
			t.Errorf("got %d requests, want one each timeout of 10 s and backoff", got)
		}
	})
}

func TestTimeoutBeginsAfterAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.delay = 9 * time.Second
		admitted := 0
		m, _ := newManager(t, a, func(c *auth.Config) {
			c.Admit = func(*http.Request) error { admitted++; time.Sleep(time.Minute); return nil }
		})
		if err := m.Try(t.Context()); err != nil {
			t.Error(err)
		}
		if admitted != 1 || a.tokenRequests() != 1 {
			t.Errorf("got %d admissions for %d requests", admitted, a.tokenRequests())
		}
	})
}

func TestKeyUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		key, unreadable := "", errors.New("permission denied")
		m, _ := newManager(t, a, func(c *auth.Config) {
			c.Key = func() (string, error) { return key, unreadable }
		})
		if err := m.Try(t.Context()); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("got %v", err)
		}
		if a.tokenRequests() != 0 {
			t.Error("a request was sent without a key")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := m.Token(ctx); !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("got %v", err)
		}
		key, unreadable = theKey, nil
		m.Retry()
		start := time.Now()
		if _, err := m.Token(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v, want a token at once", err, time.Since(start))
		}
	})
}

func TestSecretsStayInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.token = func(n int, _ *http.Request) *http.Response {
			if n == 2 {
				return answer(401, fmt.Sprintf(`{"success":false,"error":"no user %s with key %s and token token-1-secret"}`, theUser, theKey))
			}
			return nil
		}
		m, l := newManager(t, a)
		token, err := m.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(map[string]any{"token": token})
		if err != nil {
			t.Fatal(err)
		}
		out := fmt.Sprintf("%v %+v %#v %s %q %s %+v", token, token, token, token, token, text, struct{ T auth.Token }{token})
		a.revoke()
		m.Renew(token)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = m.Token(ctx)
		out += fmt.Sprintf("%v %+v", err, m.State()) + l.String() + m.Secrets().Text("Bearer token-1-secret "+theKey, 1000)
		for _, secret := range []string{theKey, "token-1-secret"} {
			if strings.Contains(out, secret) {
				t.Errorf("%q got out: %s", secret, out)
			}
		}
		if !strings.Contains(err.Error(), "no user") {
			t.Errorf("got %v, want the API's own words", err)
		}
	})
}
