package plaspy_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTripper is HTTP without sockets, for bubbles.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string, header ...string) *http.Response {
	res := &http.Response{
		StatusCode: status, Header: http.Header{}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
	}
	for i := 0; i < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res
}

const (
	theKey   = "key-0123456789-secret"
	theToken = "token-0123456789-secret"
)

// tokenAnswer is the token endpoint's answer if a test is about something else.
func tokenAnswer() *http.Response {
	return answer(200, `{"success":true,"token":"`+theToken+`","expires":"`+time.Now().Add(1000*time.Hour).UTC().Format(time.RFC3339)+`"}`)
}

// newClient returns a client of base with a token endpoint that always grants a token.
func newClient(t testing.TB, base string, rt http.RoundTripper, change ...func(*plaspy.Options)) *plaspy.Client {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := plaspy.Options{BaseURL: u, Budget: plaspy.NewBudget(0, log, nil), Log: log, Transport: rt, Timeout: 10 * time.Second}
	if rt == nil { // real sockets on a machine that may be busy
		o.Timeout = time.Minute
		tr := plaspy.NewTransport(o)
		t.Cleanup(tr.CloseIdleConnections)
		o.Transport = tr
	}
	for _, f := range change {
		f(&o)
	}
	cfg, err := plaspy.TokenConfig(o, "user", func() (string, error) { return theKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	o.Tokens = auth.New(cfg, log, nil)
	c, err := plaspy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve starts a server that answers everything but token requests with h.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(withToken(h))
	t.Cleanup(s.Close)
	return s
}

func withToken(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/api/Auth/Token") {
			h(w, r)
			return
		}
		res := tokenAnswer()
		_, _ = io.Copy(w, res.Body) // a client that is gone is the test's end
	}
}

// reply makes a client for an API that answers every call but the token's with f.
func reply(t testing.TB, f func(*http.Request) (*http.Response, error), change ...func(*plaspy.Options)) *plaspy.Client {
	t.Helper()
	return newClient(t, "https://api.example.com", roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/Auth/Token" {
			return tokenAnswer(), nil
		}
		return f(r)
	}), change...)
}

func poll(ctx context.Context, c *plaspy.Client) error {
	_, err := c.LastLocation(ctx, "dev 1", nil)
	return err
}
