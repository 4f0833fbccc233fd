package harness

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Front has something else answer every request of every bridge, as a gateway in
// front of the API does; nil ends that.
func (a *API) Front(h http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.front = h
}

func (a *API) inFront() http.Handler {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.front
}

// Page is a gateway that answers with a page of HTML.
func Page(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if status/100 == 3 {
			w.Header().Set("Location", "/maintenance.html")
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<!DOCTYPE html>\n<html><head><title>%d</title></head><body><h1>We will be back soon</h1></body></html>\n", status)
	})
}

// secure has the doors speak TLS and one version of HTTP. The bridges trust its
// certificate by the environment that it returns.
func (a *API) secure(proto int, dir string) (env []string, err error) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.StartTLS()
	s.Close()
	a.certificates, a.proto = s.TLS.Certificates, proto
	path := filepath.Join(dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		return nil, fmt.Errorf("certificate of the API: %w", err)
	}
	return []string{"SSL_CERT_FILE=" + path}, nil
}

// protect prepares a door's server for TLS.
func (a *API) protect(srv *http.Server) {
	srv.TLSConfig = &tls.Config{Certificates: a.certificates, MinVersion: tls.VersionTLS12}
	srv.Protocols = &http.Protocols{}
	srv.Protocols.SetHTTP1(a.proto == 1)
	srv.Protocols.SetHTTP2(a.proto == 2)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		return context.WithValue(ctx, lineKey{}, c)
	}
}

// lineKey is the key of a request's connection in its context.
type lineKey struct{}

// stands reports whether the connection of a request stands still.
func stands(r *http.Request) bool {
	c, ok := r.Context().Value(lineKey{}).(*line)
	return ok && c.frozen()
}

// Freeze has all present connections of all bridges stand still for ever, without
// a word to either side, while new ones live. What was answered before has arrived:
// it waits until no request is under way. It wants [Options.HTTP].
func (a *API) Freeze(ctx context.Context) error {
	a.answering.Lock()
	defer a.answering.Unlock()
	// The last bytes of the last answer are sent when its handler has returned.
	if err := until(ctx, time.Now().Add(300*time.Millisecond)); err != nil {
		return err
	}
	for _, d := range a.Doors() {
		d.mu.Lock()
		if d.lines != nil {
			d.lines.epoch.Add(1)
		}
		d.mu.Unlock()
	}
	return nil
}

// lines is a listener whose connections can be made to stand still.
type lines struct {
	net.Listener

	epoch atomic.Int64 // connections of earlier ones stand still
}

// Accept implements [net.Listener].
func (l *lines) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, of: l, epoch: l.epoch.Load(), ended: make(chan struct{})}, nil
}

type line struct {
	net.Conn

	of    *lines
	epoch int64
	ended chan struct{}
	once  sync.Once
}

func (c *line) frozen() bool { return c.epoch < c.of.epoch.Load() }

// Read implements [net.Conn].
func (c *line) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.frozen() {
		<-c.ended
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements [net.Conn].
func (c *line) Write(p []byte) (int, error) {
	if c.frozen() {
		return len(p), nil // lost on the way
	}
	return c.Conn.Write(p)
}

// Close implements [net.Conn].
func (c *line) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}
