package auth_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/auth"
)

func call(t testing.TB, rt http.RoundTripper) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/api/devices", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestRevokedMidFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		a.delay = time.Second
		m, _ := newManager(t, a)
		tr := &auth.Transport{Source: m, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep(100 * time.Millisecond) // every request is under way when the token is revoked
			return a.RoundTrip(r)
		})}
		call(t, tr)
		a.revoke()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if res := call(t, tr); res.StatusCode != 200 {
					t.Errorf("got status %d, want the replay's 200", res.StatusCode)
				}
			})
		}
		wg.Wait()
		if got := a.tokenRequests(); got != 2 {
			t.Errorf("got %d token requests, want 2", got)
		}
		if got := len(a.calls); got != 1+100+100 {
			t.Errorf("got %d calls, want each replayed once", got)
		}
	})
}

func TestLateRefusalLeavesTheNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Hour)
		m, _ := newManager(t, a)
		late := make(chan struct{})
		tr := &auth.Transport{Source: m, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			res, err := a.RoundTrip(r)
			if r.Method == http.MethodHead && res.StatusCode == http.StatusUnauthorized {
				<-late // this answer is on its way for long
			}
			return res, err
		})}
		call(t, tr)
		a.revoke()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "https://api.example.com/x", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := tr.RoundTrip(req); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("got %v, %v, want the replay's answer", res, err)
			}
		}()
		synctest.Wait()
		call(t, tr)
		fresh, err := m.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		close(late)
		<-ended
		if got, err := m.Token(t.Context()); err != nil || got != fresh {
			t.Errorf("a late refusal dropped the new token (%v)", err)
		}
		if got := a.tokenRequests(); got != 2 {
			t.Errorf("got %d token requests, want 2", got)
		}
	})
}

func TestReplay(t *testing.T) {
	for _, tc := range []struct {
		name     string
		body     func() io.Reader
		statuses []int
		want     int
		calls    int
	}{
		{"Body is sent again", func() io.Reader { return auth.NewBody([]byte("payload")) }, []int{401, 200}, 200, 2},
		{"GetBody is sent again", func() io.Reader { return strings.NewReader("payload") }, []int{401, 200}, 200, 2},
		{"a stream is not", func() io.Reader { return io.MultiReader(strings.NewReader("payload")) }, []int{401, 200}, 401, 1},
		{"second 401 is returned", func() io.Reader { return auth.NewBody([]byte("payload")) }, []int{401, 401}, 401, 2},
		{"403 is not replayed", func() io.Reader { return auth.NewBody([]byte("payload")) }, []int{403}, 403, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(time.Hour)
				admitted := 0
				a.resource = func(n int, r *http.Request, _ bool) *http.Response {
					if got, err := io.ReadAll(r.Body); err != nil || string(got) != "payload" {
						t.Errorf("request %d arrived with %q, %v", n, got, err)
					}
					return answer(tc.statuses[n-1], "")
				}
				m, _ := newManager(t, a)
				tr := &auth.Transport{Source: m, Base: a, Admit: func(*http.Request) error { admitted++; return nil }}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example.com/x", tc.body())
				if err != nil {
					t.Fatal(err)
				}
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != tc.want || len(a.calls) != tc.calls || admitted != tc.calls {
					t.Errorf("got %d after %d calls and %d admissions, want %d after %d", res.StatusCode, len(a.calls), admitted, tc.want, tc.calls)
				}
				if req.Header.Get("Authorization") != "" {
					t.Error("the caller's request was changed")
				}
			})
		})
	}
}

func TestTokenExpiresDuringAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Minute)
		m, _ := newManager(t, a)
		admitted := 0
		tr := &auth.Transport{Source: m, Base: a, Admit: func(*http.Request) error {
			if admitted++; admitted == 1 {
				time.Sleep(5 * time.Minute)
			}
			return nil
		}}
		if res := call(t, tr); res.StatusCode != 200 {
			t.Errorf("got status %d", res.StatusCode)
		}
		if admitted != 2 || len(a.calls) != 1 {
			t.Errorf("got %d admissions and %d calls, want 2 and 1: no expired token is sent, and none on an old admission", admitted, len(a.calls))
		}
	})
}

func TestAdmissionRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Minute)
		m, _ := newManager(t, a)
		full := errors.New("no room")
		tr := &auth.Transport{Source: m, Base: a, Admit: func(*http.Request) error { return full }}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.RoundTrip(req); !errors.Is(err, full) {
			t.Errorf("got %v, want %v", err, full)
		}
		if len(a.calls) != 0 {
			t.Error("the request was sent nevertheless")
		}
	})
}

func TestForeignHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(time.Minute)
		m, _ := newManager(t, a)
		a.resource = func(_ int, r *http.Request, _ bool) *http.Response {
			if r.URL.Host != "api.example.com" {
				t.Errorf("a request reached %s", r.URL.Host)
			}
			return answer(307, "", "Location", "https://evil.example.com/x")
		}
		client := &http.Client{Transport: &auth.Transport{Source: m, Base: a}} // one that follows redirects
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		if !errors.Is(err, auth.ErrForeignHost) {
			t.Errorf("got %v, want %v", err, auth.ErrForeignHost)
		}
		for _, foreign := range []string{"http://api.example.com/x", "https://api.example.com:444/x", "https://api.example.com.evil.org/x"} {
			u, err := url.Parse(foreign)
			if err != nil {
				t.Fatal(err)
			}
			req.URL = u
			if res, err := (&auth.Transport{Source: m, Base: a}).RoundTrip(req); !errors.Is(err, auth.ErrForeignHost) {
				t.Errorf("%s: got %v %v", foreign, res, err)
			}
		}
	})
}

func BenchmarkToken(b *testing.B) {
	m, _ := newManager(b, newAPI(time.Hour))
	if err := m.Try(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Token(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTransport(b *testing.B) {
	m, _ := newManager(b, newAPI(time.Hour))
	res := answer(200, "")
	tr := &auth.Transport{Source: m, Base: roundTripper(func(*http.Request) (*http.Response, error) { return res, nil })}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://api.example.com/x", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("User-Agent", "x")
	req.Header.Set("Accept", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tr.RoundTrip(req); err != nil {
			b.Fatal(err)
		}
	}
}
