package auth

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/auth/redact"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the configuration of a [Manager].
type Config struct {
	Endpoint *url.URL               // of the token endpoint, POST <base>/api/Auth/Token
	UserName string                 // sent as userName
	Key      func() (string, error) // called at each token request, so that a rotated key needs no restart

	// Transport sends token requests; nil means http.DefaultTransport. Redirects are not followed.
	Transport http.RoundTripper
	// Admit, if set, blocks until the request budget has room for a token request, or returns an error.
	Admit func(*http.Request) error
	// Timeout covers sending a token request and reading the answer, from admission on. 0 means no limit.
	Timeout   time.Duration
	UserAgent string // empty means Go's default
}

// Manager holds the one token of a process. All methods are safe for concurrent use. Make one with [New].
type Manager struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	secrets *redact.Secrets // keys and tokens

	cur atomic.Pointer[grant] // nil if there is no token

	mu         sync.Mutex // never held through a request or a wait
	flight     *flight    // the request in flight, or nil
	latest     *flight    // the last flight that was started
	pace       pace
	wake       chan struct{} // closed and replaced when pace lets a request go out earlier, or cur changes
	keyChanges int           // calls of Retry
	since      time.Time     // when a token was last obtained or lost
	issued     time.Time     // when the last token was requested
	source     string        // of the last token's lifetime
	early      int           // consecutive tokens that were refused soon after their issue
	worked     bool          // the token before the current or awaited one was accepted
	renewed    time.Time     // when a working token was last dropped
}

// New returns a Manager that holds no token yet. It starts nothing: the first [Manager.Token] fetches.
// reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Manager {
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	return &Manager{
		cfg: cfg, log: log, metrics: newMetrics(reg), secrets: redact.New(),
		wake: make(chan struct{}), since: time.Now(),
	}
}

// Token returns the token. If there is none, it blocks until a request has succeeded. It returns an error
// only when ctx is done. That error wraps the context's cause and, after a failed attempt, the last [Error].
func (m *Manager) Token(ctx context.Context) (Token, error) {
	if g := m.cur.Load(); g.usable(time.Now()) {
		return Token{g}, nil
	}
	g, err := m.await(ctx, (*grant).usable)
	return Token{g}, err
}

// Run requests the first token, renews each before it expires, and replaces dropped ones. It blocks until ctx
// is done and no token request is in flight, and then returns nil. While a renewal fails, the old token is used
// until it expires.
func (m *Manager) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		t, err := m.Token(ctx)
		if err != nil || !m.sleep(ctx, t.g) {
			continue // ctx is done or the token was dropped
		}
		// An error means that ctx is done, which ends the loop.
		_, _ = m.await(ctx, func(g *grant, _ time.Time) bool { return g != nil && g != t.g })
	}
	m.mu.Lock()
	last := m.latest
	m.mu.Unlock()
	if last != nil {
		last.cancel()
		<-last.done
	}
	return nil
}

// sleep waits until g is due for renewal; false if it is no longer held, or ctx is done.
func (m *Manager) sleep(ctx context.Context, g *grant) bool {
	timer := time.NewTimer(time.Until(g.renew))
	defer timer.Stop()
	for {
		m.mu.Lock()
		wake := m.wake
		m.mu.Unlock()
		if m.cur.Load() != g {
			return false
		}
		select {
		case <-timer.C:
			return true
		case <-wake:
		case <-ctx.Done():
			return false
		}
	}
}

// discardLocked empties cur if it is g.
func (m *Manager) discardLocked(g *grant) bool {
	if g == nil || !m.cur.CompareAndSwap(g, nil) {
		return false
	}
	m.since, m.worked = time.Now(), g.worked.Load()
	m.metrics.expiry.Set(0)
	m.broadcastLocked()
	return true
}

// Retry ends the wait after a refused key or refused tokens. Call it when the key has changed.
func (m *Manager) Retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keyChanges++
	m.early = 0
	m.pace.keyChanged()
	m.broadcastLocked()
}

// Try requests a token once, now, regardless of earlier failures, and returns the error. It is for a preflight
// check; all other callers use Token.
func (m *Manager) Try(ctx context.Context) error {
	if err := m.attempt(ctx); err != nil {
		return err
	}
	return nil
}

// State is a snapshot for readiness.
type State struct {
	Held    bool      // a token is held and may be used
	Expires time.Time // its end; zero if none is held
	Refused bool      // the API refuses the key
	Err     string    // the reason of the trouble, without secrets; empty if there is none
	Since   time.Time // when the failure began, or else when the token was obtained or lost
}

// State returns a snapshot.
func (m *Manager) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Since: m.since}
	if g := m.cur.Load(); g.usable(time.Now()) {
		s.Held, s.Expires = true, g.expires
	}
	if m.pace.err != nil {
		s.Refused, s.Err, s.Since = m.pace.err.Refused, m.pace.err.Error(), m.pace.since
	} else if m.early > 0 && !m.worked {
		s.Err = "the API refuses tokens that it has just issued"
	}
	return s
}

// Secrets returns the set that the key and each token are added to, for texts from an API that echoes
// requests.
func (m *Manager) Secrets() *redact.Secrets { return m.secrets }

// waitError joins the reason for the end of a wait with the failure that the wait was for.
func waitError(ctx context.Context, last *Error) error {
	if last == nil {
		return fmt.Errorf("wait for a token: %w", context.Cause(ctx))
	}
	return fmt.Errorf("wait for a token: %w (%w)", context.Cause(ctx), last)
}

type metrics struct {
	ok, refused, failed prometheus.Counter
	expiry              prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	refreshes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "plaspy_bridge_token_refreshes_total",
		Help: "Requests for an API token, by result: ok, refused (the key), error (anything else).",
	}, []string{"result"})
	m := &metrics{
		ok:      refreshes.WithLabelValues("ok"),
		refused: refreshes.WithLabelValues("refused"),
		failed:  refreshes.WithLabelValues("error"),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "plaspy_bridge_token_expiry_timestamp_seconds",
			Help: "Expiry of the current API token in seconds since 1970; 0 if there is none.",
		}),
	}
	if reg != nil {
		reg.MustRegister(refreshes, m.expiry)
	}
	return m
}
