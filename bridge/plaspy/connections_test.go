package plaspy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// frozen is a listener that stalls its open connections from a moment on, while new ones work.
type frozen struct {
	net.Listener
	epoch atomic.Int64
	conns atomic.Int64

	mu  sync.Mutex
	all []net.Conn
}

type freezing struct {
	net.Conn
	of    *frozen
	epoch int64
	ended chan struct{}
	once  sync.Once
}

func (f *frozen) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	f.conns.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, &freezing{Conn: c, of: f, epoch: f.epoch.Load(), ended: make(chan struct{})})
	return f.all[len(f.all)-1], nil
}

// freeze makes all present connections hang.
func (f *frozen) freeze() { f.epoch.Add(1) }

// closeAll ends the connections that a server would otherwise wait for.
func (f *frozen) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		_ = c.Close()
	}
}

func (c *freezing) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.epoch < c.of.epoch.Load() {
		<-c.ended
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *freezing) Write(p []byte) (int, error) {
	if c.epoch < c.of.epoch.Load() {
		return len(p), nil // lost on the way
	}
	return c.Conn.Write(p)
}

func (c *freezing) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

type connKey struct{}

// pipes is a listener for connections within the process, which a synctest bubble needs.
type pipes struct {
	dialed chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newPipes() *pipes { return &pipes{dialed: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialed:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.dialed <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// secure starts a TLS server that gives its handler the connection's number under connKey. It
// runs in a synctest bubble.
func secure(t *testing.T, proto int, h http.HandlerFunc) (*frozen, *plaspy.Client) {
	s := httptest.NewUnstartedServer(withToken(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != proto {
			t.Errorf("got %s, want HTTP/%d", r.Proto, proto)
		}
		h(w, r)
	}))
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	inside := newPipes()
	l := &frozen{Listener: inside}
	s.Listener = l
	s.EnableHTTP2 = proto == 2
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, l.conns.Load())
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(l.closeAll)
	c := newClient(t, s.URL, nil, func(o *plaspy.Options) {
		o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
		o.Timeout = 10 * time.Second
		tr := plaspy.NewTransport(*o)
		plaspy.SetDial(tr, inside.dial)
		o.Transport = tr
		t.Cleanup(tr.CloseIdleConnections)
	})
	return l, c
}

func fine(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`) }

// pollAtOnce polls on several connections, or streams, at the same time.
func pollAtOnce(t *testing.T, c *plaspy.Client, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			var err error
			for range 10 {
				if err = poll(t.Context(), c); err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
	wg.Wait()
}

func TestDeadConnectionsAreAbandoned(t *testing.T) {
	for proto := 1; proto <= 2; proto++ {
		for name, call := range map[string]func(context.Context, *plaspy.Client) error{
			"polls": poll,
			"posts": func(ctx context.Context, c *plaspy.Client) error {
				_, err := c.Locations(ctx, "dev", []byte(`{}`), plaspy.PostOptions{})
				return err
			},
		} {
			t.Run(fmt.Sprintf("%s with HTTP/%d", name, proto), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { deadConnections(t, proto, call) })
			})
		}
	}
}

func deadConnections(t *testing.T, proto int, call func(context.Context, *plaspy.Client) error) {
	l, c := secure(t, proto, func(w http.ResponseWriter, _ *http.Request) { fine(w) })
	pollAtOnce(t, c, 8)
	l.freeze()
	failures := 0
	for err := call(t.Context(), c); err != nil; err = call(t.Context(), c) {
		if e, ok := errors.AsType[*plaspy.Error](err); !ok || !plaspy.IsOutage(err) {
			t.Fatalf("got %+v", e)
		}
		if failures++; failures > 8 {
			t.Fatalf("HTTP/%d: %d tries failed while new connections work: %v", proto, failures, err)
		}
	}
	if failures == 0 {
		t.Errorf("HTTP/%d: the connections did not hang", proto)
	}
}

// In HTTP/2 all requests share one connection. Those that a failing server answers 503, or
// not at all, lead to a new one.
func TestConnectionsToAFailingServerAreAbandoned(t *testing.T) {
	for proto := 1; proto <= 2; proto++ {
		for name, fail := range map[string]http.HandlerFunc{
			"503":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			"502":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
			"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		} {
			t.Run(fmt.Sprintf("%s with HTTP/%d", name, proto), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { failingServer(t, proto, fail) })
			})
		}
	}
}

func failingServer(t *testing.T, proto int, fail http.HandlerFunc) {
	var sick atomic.Int64 // connections up to this one lead to a failing server
	l, c := secure(t, proto, func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(connKey{}).(int64) <= sick.Load() {
			fail(w, r)
			return
		}
		fine(w)
	})
	pollAtOnce(t, c, 4)
	sick.Store(l.conns.Load()) // new ones lead elsewhere
	failures := 0
	for poll(t.Context(), c) != nil {
		if failures++; failures > 12 {
			t.Fatalf("HTTP/%d: still on the old connections after %d failures", proto, failures)
		}
	}
	if failures == 0 {
		t.Error("nothing failed")
	}
}

// Answers 5xx to single devices are no reason to leave connections.
func TestSingleFailuresKeepTheConnection(t *testing.T) {
	for proto := 1; proto <= 2; proto++ {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			l, c := secure(t, proto, func(w http.ResponseWriter, _ *http.Request) {
				if n.Add(1)%3 != 0 {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				fine(w)
			})
			for range 60 {
				_ = poll(t.Context(), c)
			}
			if got := l.conns.Load(); got > 2 {
				t.Errorf("HTTP/%d: %d connections for 60 requests, of which every third succeeds", proto, got)
			}
		})
	}
}
