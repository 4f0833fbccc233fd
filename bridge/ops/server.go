package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of a [Server]. Health, Gatherer and Log are required.
type Options struct {
	Health   *Health
	Gatherer prometheus.Gatherer // the source of /metrics
	Token    string              // bearer token; if empty, the guarded pages are served on loopback only
	Pprof    bool                // serve /debug/pprof
	View     http.Handler        // the page and its files; nil means that they are not served
	Feed     http.Handler        // /devices.geojson and /events; nil means that they are not served
	Version  string              // shown by /readyz
	Log      *slog.Logger
}

// Limits of the server. Requests have a few hundred bytes. There is no ReadTimeout,
// because it would also end answers that stream.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	lastRequest   = 100 * time.Millisecond // how long an open connection may send one after a stop began
	// writeTimeout is above the 30 s of a CPU profile. Streams extend their own
	// deadline with http.ResponseController.
	writeTimeout   = 90 * time.Second
	maxHeaderBytes = 16 << 10
	scrapeTimeout  = 10 * time.Second
	scrapesAtOnce  = 4
)

// Server serves /livez, /readyz, /metrics, the page at /, the feed and, if enabled,
// /debug/pprof.
type Server struct {
	http     *http.Server
	listener net.Listener
	unused   unused
}

// New returns a server for a listener, which it owns from then on. It answers once
// [Server.Serve] runs.
func New(listener net.Listener, o Options) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{listener: listener}
	s.http = &http.Server{
		Handler:           s.handler(o),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	// Shutdown waits for answers but does not end them. Without this context, a profile
	// or a stream of events would delay it until its deadline.
	s.http.RegisterOnShutdown(cancel)
	// It also waits 5 s for a connection without a request, as browsers open in advance.
	s.http.ConnState = s.unused.note
	s.http.RegisterOnShutdown(func() { time.AfterFunc(lastRequest, s.unused.close) })
	return s
}

// unused are the connections on which no request has begun.
type unused struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// note implements [http.Server.ConnState].
func (u *unused) note(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if state != http.StateNew {
		delete(u.conns, c)
		return
	}
	if u.conns == nil {
		u.conns = make(map[net.Conn]bool)
	}
	u.conns[c] = true
}

func (u *unused) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		_ = c.Close() // its goroutine reports errors
	}
}

// Addr returns the listener's address with its actual port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve answers until [Server.Shutdown] is called, then returns nil. It returns an
// error if it ends for another reason.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", s.Addr(), err)
	}
	return nil
}

// Shutdown closes the listener, cancels the contexts of the active requests, and
// waits for them until ctx is done. Then it closes their connections. It may be
// called before Serve and more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	// The http.Server knows a listener only once it serves it.
	if closeErr := s.listener.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	if err != nil {
		return fmt.Errorf("stop http server: %w", err)
	}
	return nil
}

// handler routes requests. The method in the patterns makes the mux answer 405 to
// other methods; GET includes HEAD.
func (s *Server) handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", o.Health.serveLive)
	mux.HandleFunc("GET /readyz", o.Health.serveReady(o.Version))
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce,
		EnableOpenMetrics:   true, // for a scraper that asks for it
		Timeout:             scrapeTimeout,
	}))
	g := newGuard(o.Token, s.listener.Addr(), o.Log)
	mux.HandleFunc("GET /debug/", http.NotFound)
	if o.Pprof {
		mux.Handle("GET /debug/pprof/", g.of(profiles(), "The profile"))
	}
	if o.Feed != nil {
		feed := g.of(o.Feed, "The feed of positions")
		mux.Handle("GET /devices.geojson", feed)
		mux.Handle("GET /events", feed)
	}
	if o.View != nil {
		mux.Handle("GET /", g.of(o.View, "The live view"))
	}
	return secure(named(mux, o.Token, s.listener.Addr()))
}

// profiles serves /debug/pprof. Profiles show memory, secrets included.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	// cmdline is left out, because arguments may be private.
	mux.HandleFunc("/debug/pprof/cmdline", http.NotFound)
	return mux
}

// NewRegistry returns a metrics registry with the metrics of Go and of the process,
// and the health table.
func NewRegistry(h *Health) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		healthCollector{h},
	)
	return registry
}

// BuildInfo returns the metric with the version of the program.
func BuildInfo(version, revision string) prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "plaspy_bridge_build_info", Help: "Always 1; the labels are the version, the commit and the version of Go.",
	}, []string{"version", "revision", "goversion"})
	info.WithLabelValues(version, revision, runtime.Version()).Set(1)
	return info
}

var (
	readyDesc = prometheus.NewDesc("plaspy_bridge_ready",
		"Whether the bridge is ready (1) or not (0); /readyz has the reason.", nil, nil)
	partReadyDesc = prometheus.NewDesc("plaspy_bridge_part_ready",
		"Whether this part is ready (1) or not (0), as in /readyz.", []string{"part"}, nil)
	partDegradedDesc = prometheus.NewDesc("plaspy_bridge_part_degraded",
		"Whether this part works but needs attention (1) or not (0), as in /readyz.", []string{"part"}, nil)
)

// healthCollector shows the health table as metrics.
type healthCollector struct{ health *Health }

// Describe implements prometheus.Collector.
func (healthCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- readyDesc
	ch <- partReadyDesc
	ch <- partDegradedDesc
}

// Collect implements prometheus.Collector.
func (c healthCollector) Collect(ch chan<- prometheus.Metric) {
	number := map[bool]float64{true: 1}
	ready, parts := c.health.Ready()
	ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, number[ready])
	for name, p := range parts {
		ch <- prometheus.MustNewConstMetric(partReadyDesc, prometheus.GaugeValue, number[p.OK], name)
		ch <- prometheus.MustNewConstMetric(partDegradedDesc, prometheus.GaugeValue, number[p.Degraded], name)
	}
}
