package plaspy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
)

// tokenAPI is an API with tokens that are valid until they are revoked.
type tokenAPI struct {
	mu      sync.Mutex
	issued  int
	revoked int                                // tokens up to this one are refused ...
	refuse  func() *http.Response              // ... with this
	token   func(n int) *http.Response         // nil, or nil returned: a token
	other   func(*http.Request) *http.Response // nil, or nil returned: success
	sent    []time.Time                        // requests with a token
}

func (a *tokenAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/Token") {
		a.issued++
		if a.token != nil {
			if res := a.token(a.issued); res != nil {
				return res, nil
			}
		}
		return answer(200, fmt.Sprintf(`{"success":true,"token":"token-%d","expires":"2100-01-01T00:00:00Z"}`, a.issued)), nil
	}
	a.sent = append(a.sent, time.Now())
	var n int
	if _, err := fmt.Sscanf(r.Header.Get("Authorization"), "Bearer token-%d", &n); err != nil || n <= a.revoked {
		return a.refuse(), nil
	}
	if a.other != nil {
		if res := a.other(r); res != nil {
			return res, nil
		}
	}
	return answer(200, `{"success":true}`), nil
}

func (a *tokenAPI) revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = a.issued
}

// An API may say in words that it does not take a token.
func TestTokenRefusedInWords(t *testing.T) {
	for _, tc := range []struct {
		name string
		res  func() *http.Response
	}{
		{"401", func() *http.Response { return answer(401, "") }},
		{"200, expired", func() *http.Response { return answer(200, `{"success":false,"error":"Token expired"}`) }},
		{"400, invalid", func() *http.Response { return answer(400, `{"success":false,"error":"The token is invalid."}`) }},
		{"403, expired", func() *http.Response { return answer(403, `{"success":false,"error":"the access token has expired"}`) }},
		{"500, JWT", func() *http.Response { return answer(500, `{"success":false,"error":"jwt expired"}`) }},
		{"200, Spanish", func() *http.Response { return answer(200, `{"success":false,"error":"El token no es v\u00e1lido"}`) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &tokenAPI{refuse: tc.res}
				c := newClient(t, "https://api.example.com", a)
				if err := poll(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					time.Sleep(2 * time.Minute)
					a.revoke()
					var wg sync.WaitGroup
					for i := range 20 {
						wg.Go(func() {
							if i%2 == 0 {
								if err := poll(t.Context(), c); err != nil {
									t.Errorf("poll: %v", err)
								}
								return
							}
							asked := 0
							_, err := c.Locations(t.Context(), "dev", nil, plaspy.PostOptions{
								IdempotencyKey: fmt.Sprint(i), Before: func() error { asked++; return nil }, Refused: func() { asked += 10 },
							})
							if err != nil || asked != 1 && asked != 12 {
								t.Errorf("post: %v; the caller was asked %d times", err, asked)
							}
						})
					}
					wg.Wait()
				}
				if a.issued != 4 {
					t.Errorf("%d tokens were issued, want 4", a.issued)
				}
			})
		})
	}
}

// A message for which the API blames each token is refused in the end, and costs a token a minute at most.
func TestMessageThatIsSaidToHaveABadToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &tokenAPI{other: func(r *http.Request) *http.Response {
			if strings.Contains(r.URL.Path, "bad") {
				return answer(400, `{"success":false,"error":"invalid device token"}`)
			}
			return nil
		}}
		c := newClient(t, "https://api.example.com", a)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for {
					_, err := c.Locations(t.Context(), fmt.Sprint("bad", i), nil, plaspy.PostOptions{IdempotencyKey: fmt.Sprint(i)})
					switch plaspy.Classify(err) {
					case plaspy.Reject:
						return
					case plaspy.Reauth:
						time.Sleep(time.Second)
					default:
						t.Errorf("got %v", err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for time.Since(start) < 5*time.Minute {
				if err := poll(t.Context(), c); err != nil {
					t.Errorf("poll: %v", err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		wg.Wait()
		if a.issued > 4 {
			t.Errorf("%d tokens were issued", a.issued)
		}
		if n := len(a.sent); n > 3000+20*100 {
			t.Errorf("%d requests", n)
		}
	})
}

// Other refusals are returned unchanged.
func TestRefusalsThatAreNotAboutTheToken(t *testing.T) {
	for _, text := range []string{"device expired", "invalid location", "no permission", "expects a token number", ""} {
		a := &tokenAPI{other: func(*http.Request) *http.Response { return answer(400, `{"success":false,"error":"`+text+`"}`) }}
		c := newClient(t, "https://api.example.com", a)
		_, err := c.Locations(t.Context(), "dev", nil, plaspy.PostOptions{IdempotencyKey: "1"})
		if plaspy.Classify(err) != plaspy.Reject || a.issued != 1 || len(a.sent) != 1 {
			t.Errorf("%q: got %v after %d tokens and %d requests", text, err, a.issued, len(a.sent))
		}
	}
}

// Requests that were admitted while there was no token do not go out together when there is one again.
func TestNoBurstAfterATokenOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, calls = 300, 64
		start := time.Now()
		a := &tokenAPI{token: func(n int) *http.Response {
			switch {
			case n == 1:
				return answer(200, fmt.Sprintf(`{"success":true,"token":"token-1","expires":%q}`, time.Now().Add(2*time.Second).UTC().Format(time.RFC3339Nano)))
			case time.Since(start) < 14*time.Second:
				return answer(503, "")
			}
			return nil
		}}
		c := newClient(t, "https://api.example.com", a, func(o *plaspy.Options) { o.Budget = newBudget(limit) })
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				if _, err := c.Locations(t.Context(), "d", []byte("{}"), plaspy.PostOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r := &record{at: a.sent}
		if most, lead := r.worst(limit); most > limit || lead > limit/10 {
			t.Errorf("%d requests in a minute, and %.0f ahead of the even pace", most, lead)
		}
		if len(a.sent) != calls {
			t.Errorf("%d requests were sent, want %d", len(a.sent), calls)
		}
	})
}

// If tokens live shorter than their round trip, there is a pause between two requests for one.
func TestShortLivedTokensAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &tokenAPI{token: func(n int) *http.Response {
			expires := time.Now().Add(15 * time.Millisecond)
			time.Sleep(20 * time.Millisecond)
			return answer(200, fmt.Sprintf(`{"success":true,"token":"token-%d","expires":%q}`, n, expires.UTC().Format(time.RFC3339Nano)))
		}}
		u, err := url.Parse("https://api.example.com")
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		cfg, err := plaspy.TokenConfig(plaspy.Options{BaseURL: u, Budget: newBudget(0), Log: log, Transport: a}, "u", func() (string, error) { return theKey, nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := auth.New(cfg, log, nil).Run(ctx); err != nil {
			t.Error(err)
		}
		if a.issued > 62 {
			t.Errorf("%d requests for a token in a minute", a.issued)
		}
	})
}
