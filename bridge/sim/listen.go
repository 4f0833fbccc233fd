package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Listener serves a Server over TCP until it is closed.
type Listener struct {
	URL string // without a slash at the end

	close func() error
}

// Listen serves the API at an address such as "127.0.0.1:8090" or, for a free
// port, "127.0.0.1:0", and returns once connections are accepted. The listener
// is closed by Close, or when ctx ends.
func (s *Server) Listen(ctx context.Context, addr string) (*Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("simulated API: %w", err)
	}
	base, leave := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	l := &Listener{URL: "http://" + reachable(ln.Addr())}
	l.close = sync.OnceValue(func() error {
		leave() // requests that hang or wait end now
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	})
	context.AfterFunc(ctx, func() { _ = l.close() }) // Close returns the error
	return l, nil
}

// Close stops serving, lets answers under way finish for two seconds at most,
// and returns when every goroutine of the listener has ended. Requests that
// a fault makes wait are aborted. Further calls return the same error.
func (l *Listener) Close() error { return l.close() }

// reachable returns the address to dial for the address of a listener.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
