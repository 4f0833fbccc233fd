package plaspy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

func TestBounds(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"success":true,"lastLocation":{"x":"`))
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for range 200 << 20 / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, tc := range []struct {
		name, want string
		h          http.HandlerFunc
	}{
		{"endless stream", "larger than 1048576 bytes", endless},
		{"stated length", "larger than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "209715200")
			endless(w, r)
		}},
		{"gzip bomb", "larger than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			endless(zipped{w, z}, r)
		}},
		{"truncated", "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"success":true`)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, tc.h)
			c := newClient(t, s.URL, nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.LastLocation(t.Context(), "dev", nil)
			runtime.ReadMemStats(&after)
			e, ok := errors.AsType[*plaspy.Error](err)
			if !ok || !strings.Contains(e.Error(), tc.want) || len(e.Excerpt) > 1024 {
				t.Fatalf("got %.300v, want %q", err, tc.want)
			}
			// Growing a buffer to a MiB allocates a few in all; the server's side is in the sum too.
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 12 {
				t.Errorf("%d MiB were allocated", used)
			}
		})
	}
}

// zipped writes an answer through a compressor.
type zipped struct {
	http.ResponseWriter
	z io.Writer
}

func (z zipped) Write(p []byte) (int, error) { return z.z.Write(p) }

func TestTimeout(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    func(r *http.Request) (*http.Response, error)
	}{
		{"no answer", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}},
		{"no body", func(r *http.Request) (*http.Response, error) {
			res := answer(200, "")
			res.ContentLength = -1
			res.Body = io.NopCloser(bodyFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, context.Cause(r.Context())
			}))
			return res, nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := reply(t, tc.f)
				start := time.Now()
				err := poll(t.Context(), c)
				e, ok := errors.AsType[*plaspy.Error](err)
				if !ok || !e.Timeout() || plaspy.Classify(err) != plaspy.Retry || !plaspy.IsOutage(err) || time.Since(start) != 10*time.Second {
					t.Errorf("got %v (%v) after %v", err, plaspy.Classify(err), time.Since(start))
				}
				for _, stop := range []func() (context.Context, context.CancelFunc){
					func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) },
					func() (context.Context, context.CancelFunc) {
						return context.WithTimeoutCause(t.Context(), time.Second, errors.New("closing"))
					},
				} {
					ctx, cancel := stop()
					err = poll(ctx, c)
					cancel()
					if plaspy.Classify(err) != plaspy.Canceled || plaspy.IsOutage(err) {
						t.Errorf("got %v (%v), want the caller's end", err, plaspy.Classify(err))
					}
				}
			})
		})
	}
}

type bodyFunc func([]byte) (int, error)

func (f bodyFunc) Read(p []byte) (int, error) { return f(p) }

// The limit is for a request, not for the wait for a token in the middle of a replay.
func TestTimeoutPausesForAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, polls := 0, 0
		c := newClient(t, "https://api.example.com", roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/Auth/Token" {
				if tokens++; tokens == 2 {
					return answer(503, "", "Retry-After", "60"), nil
				}
				return tokenAnswer(), nil
			}
			if polls++; polls == 2 {
				return answer(401, `{"success":false}`), nil
			}
			return answer(200, `{"success":true}`), nil
		}))
		for range 2 {
			if err := poll(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		if tokens != 3 || polls != 3 {
			t.Errorf("got %d token requests and %d polls, want 3 and 3", tokens, polls)
		}
	})
}

// countConnections counts the connections to a server that is not started yet.
func countConnections(s *httptest.Server) *atomic.Int64 {
	conns := new(atomic.Int64)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	return conns
}

func TestConnectionsAreReused(t *testing.T) {
	s := httptest.NewUnstartedServer(withToken(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("got %s, want HTTP/2", r.Proto)
		}
		_, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`)
	}))
	s.EnableHTTP2 = true
	conns := countConnections(s)
	s.StartTLS()
	defer s.Close()
	c := newClient(t, s.URL, nil, func(o *plaspy.Options) {
		o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
		o.Transport = plaspy.NewTransport(*o)
	})
	for range 50 {
		if err := poll(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

func TestIdleConnectionsForAllWorkers(t *testing.T) {
	const workers = 20
	gate := make(chan struct{})
	var arrived sync.WaitGroup
	s := httptest.NewUnstartedServer(withToken(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		<-gate
		_, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`)
	}))
	conns := countConnections(s)
	s.Start()
	defer s.Close()
	c := newClient(t, s.URL, nil, func(o *plaspy.Options) {
		o.MaxConns = workers
		o.Transport = plaspy.NewTransport(*o)
	})
	for range 3 {
		arrived.Add(workers)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				if err := poll(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		}
		arrived.Wait()
		for range workers {
			gate <- struct{}{}
		}
		wg.Wait()
	}
	if got := conns.Load(); got > workers+1 {
		t.Errorf("got %d connections for %d workers", got, workers)
	}
}

func TestUninvitedGzip(t *testing.T) {
	for _, tc := range []struct{ name, encoding, want string }{
		{"gzip", "gzip", ""}, {"old name", "X-GZIP", ""}, {"another encoding", "br", "encoded (br)"}, {"no gzip at all", "gzip", "gzip: invalid header"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", tc.encoding)
				z := gzip.NewWriter(w)
				defer z.Close()
				switch {
				case strings.HasSuffix(r.URL.Path, "/Token"):
					w.Header().Set("Content-Encoding", "gzip")
					res := tokenAnswer()
					_, _ = io.Copy(z, res.Body)
				case tc.name == "no gzip at all":
					_, _ = io.WriteString(w, `{"success":true}`)
				default:
					_, _ = io.WriteString(z, `{"success":true,"lastLocation":{"a":1}}`)
				}
			}))
			defer s.Close()
			c := newClient(t, s.URL, nil)
			got, err := c.LastLocation(t.Context(), "dev", nil)
			if tc.want == "" && (err != nil || string(got.Raw) != `{"a":1}`) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %s, %v, want %q", got.Raw, err, tc.want)
			}
		})
	}
}

// Queries about a fleet that no NATS message can carry cost bounded memory, however many come at once.
func TestListQueriesInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	var most, now atomic.Int64
	c := reply(t, func(r *http.Request) (*http.Response, error) {
		most.Store(max(most.Load(), now.Add(1)))
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		res := answer(200, "")
		res.ContentLength = -1
		left := size
		res.Body = io.NopCloser(bodyFunc(func(p []byte) (int, error) {
			if left <= 0 {
				return 0, io.EOF
			}
			left -= len(p)
			return len(p), nil
		}))
		return res, nil
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := c.DeviceList(t.Context())
			now.Add(-1)
			if !errors.Is(err, plaspy.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	if got := most.Load(); got > 5 {
		t.Errorf("%d answers were read at once", got)
	}
	if used := (int64(after.HeapSys) - int64(before.HeapSys)) >> 20; used > 256 {
		t.Errorf("the heap grew by %d MiB", used)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DeviceList(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
