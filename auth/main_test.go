package auth_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"plaspy-bridge/auth"
	"plaspy-bridge/auth/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	theKey  = "key-0123456789-secret"
	theUser = "fleet@example.com"
)

// roundTripper is HTTP in a bubble: real sockets would keep it from idling.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string, header ...string) *http.Response {
	res := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res
}

// api is a token endpoint and one resource that takes every valid token.
type api struct {
	mu     sync.Mutex
	tokens []time.Time // when each token request came
	calls  []string    // Authorization of each other request
	valid  map[string]time.Time
	life   time.Duration
	ahead  time.Duration // the server's clock, relative to ours
	delay  time.Duration // of a token request
	last   string

	token    func(n int, r *http.Request) *http.Response          // nil, or nil returned: a new token
	resource func(n int, r *http.Request, ok bool) *http.Response // likewise: 200 or 401
}

func newAPI(life time.Duration) *api { return &api{life: life, valid: map[string]time.Time{}} }

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/api/Auth/Token" {
		return a.issue(r)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	header := r.Header.Get("Authorization")
	a.calls = append(a.calls, header)
	end, ok := a.valid[strings.TrimPrefix(header, "Bearer ")]
	ok = ok && time.Now().Before(end)
	if a.resource != nil {
		if res := a.resource(len(a.calls), r, ok); res != nil {
			return res, nil
		}
	}
	if !ok {
		return answer(401, `{"success":false}`), nil
	}
	return answer(200, `{"success":true}`), nil
}

func (a *api) issue(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.tokens = append(a.tokens, time.Now())
	n, delay, custom := len(a.tokens), a.delay, a.token
	a.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if custom != nil {
		if res := custom(n, r); res != nil {
			return res, nil
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	end := time.Now().Add(a.life)
	a.last = fmt.Sprintf("token-%d-secret", n)
	a.valid[a.last] = end
	return answer(200, fmt.Sprintf(`{"success":true,"token":%q,"expires":%q}`, a.last, end.Add(a.ahead).UTC().Format(time.RFC3339Nano)),
		"Date", time.Now().Add(a.ahead).UTC().Format(http.TimeFormat)), nil
}

// revoke makes every token issued so far invalid.
func (a *api) revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.valid)
}

func (a *api) tokenRequests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.tokens)
}

// logs collects log lines.
type logs struct{ logtest.Log }

// count returns how many lines of at least level Info have the message.
func (l *logs) count(t testing.TB, message string) (n int) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Level != "DEBUG" && strings.Contains(entry.Msg, message) {
			n++
		}
	}
	return n
}

func newManager(t testing.TB, rt http.RoundTripper, change ...func(*auth.Config)) (*auth.Manager, *logs) {
	t.Helper()
	base, err := url.Parse("https://api.example.com/api/Auth/Token")
	if err != nil {
		t.Fatal(err)
	}
	cfg := auth.Config{
		Endpoint: base, UserName: theUser, Transport: rt, Timeout: 10 * time.Second,
		Key: func() (string, error) { return theKey, nil },
	}
	for _, f := range change {
		f(&cfg)
	}
	l := &logs{}
	return auth.New(cfg, slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), nil), l
}
