package front

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
	"time"

	"plaspy-bridge/bridge/harness/network"
)

// Front makes a handler answer every request of every bridge, as a gateway in front of
// the API does. Nil ends that.
func (a *API) Front(h http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.front = h
}

// inFront returns the handler that answers instead of the API, or nil.
func (a *API) inFront() http.Handler {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.front
}

// Page returns a gateway that answers with a status and a page of HTML.
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

// Secure makes the doors use TLS and one version of HTTP, 1 or 2. It is called before the
// first door is opened. It writes the certificate to dir and returns the environment in
// which a bridge trusts it.
func (a *API) Secure(proto int, dir string) (env []string, err error) {
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

// protect configures a door's server for TLS.
func (a *API) protect(srv *http.Server) {
	srv.TLSConfig = &tls.Config{Certificates: a.certificates, MinVersion: tls.VersionTLS12}
	srv.Protocols = &http.Protocols{}
	srv.Protocols.SetHTTP1(a.proto == 1)
	srv.Protocols.SetHTTP2(a.proto == 2)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		return context.WithValue(ctx, connKey{}, c)
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// frozen reports whether the connection of a request is frozen.
func frozen(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	return ok && network.Frozen(c)
}

// Freeze freezes all present connections of all bridges, while new ones work. It first
// waits until no request is in progress, so that every earlier answer has arrived. It
// requires [API.Secure].
func (a *API) Freeze(ctx context.Context) error {
	a.answering.Lock()
	defer a.answering.Unlock()
	// The last bytes of the last answer are sent after its handler has returned.
	select {
	case <-time.After(300 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, d := range a.Doors() {
		d.mu.Lock()
		if d.conns != nil {
			d.conns.Freeze()
		}
		d.mu.Unlock()
	}
	return nil
}
