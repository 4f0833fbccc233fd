package plaspy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"plaspy-bridge/bridge/plaspy"
)

// Every status that net/http names, and some that it does not, with the API's own body and with others.
func TestClassifyStatus(t *testing.T) {
	const own = true
	special := map[int]plaspy.Class{
		401: plaspy.Reauth, 408: plaspy.Retry, 425: plaspy.Retry, 429: plaspy.Throttled,
	}
	for _, tc := range []struct {
		body string
		own  bool
	}{
		{`{"success":true,"locations":[]}`, own}, {`{"success":false,"error":"no"}`, own}, {`{"error":"no"}`, own}, {`{"success":null}`, own},
		{"", !own}, {"<html>moved</html>", !own}, {`{"message":"no Route matched"}`, !own}, {`{}`, !own}, {`[]`, !own}, {`"error"`, !own},
		{`{"error":"no"`, !own}, {`{"nested":{"success":false}}`, !own}, {"404 page not found", !own}, {"\x1f\x8b\x08", !own},
	} {
		for status := 200; status < 600; status++ {
			if http.StatusText(status) == "" && status%100 != 99 {
				continue
			}
			t.Run(fmt.Sprint(status, " ", tc.body), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := reply(t, func(*http.Request) (*http.Response, error) { return answer(status, tc.body), nil })
					_, err := c.Locations(t.Context(), "dev", []byte(`{}`), plaspy.PostOptions{})
					if err == nil {
						if status > 299 || !tc.own && status != http.StatusNoContent {
							t.Error("got no error")
						}
						return
					}
					want := plaspy.Reject
					switch class, known := special[status]; {
					case known:
						want = class
					case status >= 500:
						want = plaspy.Retry
					case status >= 300 && status < 400, !tc.own:
						want = plaspy.Foreign
					case status == 403:
						want = plaspy.Forbidden
					case status < 300 && tc.body != `{"success":false,"error":"no"}`:
						want = plaspy.Retry // the API's, but not as documented
					}
					if got := plaspy.Classify(err); got != want {
						t.Errorf("got %v, want %v", got, want)
					}
					if got := plaspy.IsOutage(err); got != (status >= 500) {
						t.Errorf("got outage=%v", got)
					}
					if got := plaspy.IsGone(err); got != (status == 404 || status == 410) {
						t.Errorf("got gone=%v", got)
					}
					if got := !c.Answered().IsZero(); got != (tc.own && status < 500 && status/100 != 3) {
						t.Errorf("the API itself answered: %v", got)
					}
				})
			})
		}
	}
}

func TestClassifyFailures(t *testing.T) {
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()
	secure := httptest.NewUnstartedServer(withToken(http.NotFound))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	defer secure.Close()
	broken := func(f func(net.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			f(conn)
			_ = conn.Close()
		}
	}
	for _, tc := range []struct {
		name   string
		url    string
		h      http.HandlerFunc
		class  plaspy.Class
		outage bool
	}{
		{"closed without an answer", "", broken(func(net.Conn) {}), plaspy.Retry, true},
		{"reset", "", broken(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), plaspy.Retry, true},
		{"no HTTP", "", broken(func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n\r\n") }), plaspy.Retry, true},
		{"truncated answer", "", broken(func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") }), plaspy.Retry, true},
		{"truncated chunk", "", broken(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{")
		}), plaspy.Retry, true},
		{"huge header", "", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, plaspy.Retry, true},
		{"success false", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"success":false}`) }, plaspy.Reject, false},
		{"HTML", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>`) }, plaspy.Foreign, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, tc.h)
			err := poll(t.Context(), newClient(t, s.URL, nil))
			if got := plaspy.Classify(err); err == nil || got != tc.class || plaspy.IsOutage(err) != tc.outage {
				t.Errorf("got %v, outage=%v, from %v; want %v, %v", got, plaspy.IsOutage(err), err, tc.class, tc.outage)
			}
		})
	}
	for _, tc := range []struct {
		name   string
		err    error
		class  plaspy.Class
		outage bool
	}{
		{"dial refused", &plaspy.Error{Endpoint: "x", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, plaspy.Retry, false},
		{"unknown", errors.New("whatever"), plaspy.Retry, false},
		{"cancelled", fmt.Errorf("x: %w", context.Canceled), plaspy.Canceled, false},
		{"caller's deadline", context.DeadlineExceeded, plaspy.Canceled, false},
		{"bad id", &plaspy.IDError{}, plaspy.Reject, false},
		{"TLS alert", tls.AlertError(42), plaspy.Retry, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := plaspy.Classify(tc.err); got != tc.class || plaspy.IsOutage(tc.err) != tc.outage {
				t.Errorf("got %v, %v", got, plaspy.IsOutage(tc.err))
			}
		})
	}
	// Without a token, the wait for one returns the reason when its context ends.
	for _, url := range []string{refused.URL, secure.URL} {
		ctx, cancel := context.WithCancel(t.Context())
		var requests atomic.Int64
		err := poll(ctx, newClient(t, url, nil, func(o *plaspy.Options) {
			next := o.Transport
			o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if requests.Add(1) == 2 { // so the first one's failure is known
					cancel()
				}
				return next.RoundTrip(r)
			})
		}))
		cancel()
		if plaspy.Classify(err) != plaspy.Canceled || !strings.Contains(err.Error(), "token request") {
			t.Errorf("got %v", err)
		}
	}
}

func TestClassNames(t *testing.T) {
	seen := map[string]bool{}
	for c := plaspy.Retry; c <= plaspy.Canceled; c++ {
		seen[c.String()] = true
	}
	if len(seen) != 7 {
		t.Errorf("got %v", seen)
	}
}
