package auth

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"plaspy-bridge/auth/redact"

	"github.com/prometheus/client_golang/prometheus"
)

// Config tells a [Manager] where and as whom to ask.
type Config struct {
	Endpoint *url.URL               // of the token endpoint, POST <base>/api/Auth/Token
	UserName string                 // sent as userName
	Key      func() (string, error) // called at each token request, so that a rotated key needs no restart

	// Transport sends token requests; nil: http.DefaultTransport. Redirects are not followed.
	Transport http.RoundTripper
	// Admit, if set, blocks until the request budget has room for a token request, or returns an error.
	Admit func(*http.Request) error
	// Timeout covers sending a token request and reading the answer, from admission on. 0: none.
	Timeout   time.Duration
	UserAgent string // empty: Go's
	// Secrets, if set, is the set that keys and tokens are added to. Optional.
	Secrets *redact.Secrets
}

// Manager holds the one token of a process. All methods are safe for concurrent use. Make one with [New].
type Manager struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	cur atomic.Pointer[grant] // nil: none held

	mu         sync.Mutex // never held through a request or a wait
	flight     *flight
	pace       pace
	wake       chan struct{}        // closed and replaced when pace is eased or cur changes
	eased      int                  // times that Retry was called
	since      time.Time            // when a token was last obtained or lost
	renewed    time.Time            // when Renew last dropped one
	source     string               // how the last token's life was found out
	shortLived int                  // tokens in a row that worked and were refused soon
	deaf       map[string]time.Time // resources that refuse tokens which others accept, and since when that is known
	defied     atomic.Bool          // there are some
	retried    time.Time            // when one of them was last tried with another token
	heir       bool                 // the next token follows one that was good
}

// New returns a Manager that holds no token yet. It starts nothing: the first [Manager.Token] fetches.
// reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Manager {
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Secrets == nil {
		cfg.Secrets = redact.New()
	}
	return &Manager{
		cfg: cfg, log: log, metrics: newMetrics(reg),
		wake: make(chan struct{}), since: time.Now(),
	}
}

// Token returns the token held, or waits, through failures and their backoff, until there is one. It
// returns an error only when ctx is done: that error wraps the context's cause and, where there was a
// failed attempt, the last [Error].
func (m *Manager) Token(ctx context.Context) (Token, error) {
	if g := m.cur.Load(); g.usable(time.Now()) {
		return Token{g}, nil
	}
	g, err := m.await(ctx, (*grant).usable)
	return Token{g}, err
}

// Run keeps a token held: it fetches the first, renews each ahead of its end, and replaces dropped ones. It
// blocks until ctx is done and then returns nil. While a renewal fails, the old token is served to its end.
func (m *Manager) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		t, err := m.Token(ctx)
		if err != nil || !m.sleep(ctx, t.g) {
			continue // ctx is done or the token was dropped
		}
		// An error means that ctx is done, which ends the loop.
		_, _ = m.await(ctx, func(g *grant, _ time.Time) bool { return g != nil && g != t.g })
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

// Drop discards t, because the API refused it. A token that is no longer the one held is left to whoever
// replaced it: a late refusal of an older token has no effect.
func (m *Manager) Drop(t Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(t.g)
}

// drop is Drop; the caller holds mu.
func (m *Manager) drop(g *grant) {
	if !m.discard(g) {
		return
	}
	m.heir = g.used.Load()
	if m.heir {
		m.log.Info("token refused by the API, fetching another", "elapsed", time.Since(g.issued))
		m.space(g, time.Now())
		return
	}
	delay := m.pace.rejected(time.Now())
	if m.pace.unproven == 1 {
		m.log.Warn("token refused by the API as soon as it was issued, spacing out token requests", "delay", delay)
	}
}

// space holds back the replacements of tokens that were good and are refused one
// after the other, as by an API that lets only an account's newest token live
// where several processes ask for theirs. Each wait is random and has nothing to
// do with those before it, so that they share the time. The caller holds mu.
func (m *Manager) space(g *grant, now time.Time) {
	if m.lasted(g, now) {
		return
	}
	if m.shortLived++; m.shortLived <= shortLivedMax {
		return
	}
	delay := rand.N(2 * time.Second)
	m.pace.hold(now.Add(delay))
	if m.shortLived == shortLivedMax+1 {
		m.log.Warn("tokens are refused soon after they worked, spacing out token requests; is this API key in use elsewhere?", "delay", delay)
	}
}

// lasted reports whether a token that comes to its end was not short-lived, which
// ends a row of those that were. The caller holds mu.
func (m *Manager) lasted(g *grant, now time.Time) bool {
	if now.Sub(g.issued) < peace {
		return false
	}
	if m.shortLived > shortLivedMax {
		m.log.Info("tokens last again")
	}
	m.shortLived = 0
	return true
}

// refused decides what a 401 says of the token that it answers, and reports
// whether the request should be tried with another one. It does not drop a token
// that others are served with for a resource that did not take its last
// replacement either.
func (m *Manager) refused(t Token, resource string) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cur.Load() != t.g {
		return true // there is a newer one
	}
	if !t.g.used.Load() {
		if m.doubts(t.g, resource) {
			return false // others have not had their turn
		}
	} else if at, ok := m.deaf[resource]; ok {
		// Once a minute, for all of them together, and without a word on how
		// long tokens last.
		now := time.Now()
		if now.Sub(at) < deafFor || now.Sub(m.retried) < deafFor {
			return false
		}
		delete(m.deaf, resource)
		m.retried, m.heir = now, true
		return m.discard(t.g)
	}
	m.drop(t.g)
	return true
}

// refusedAgain is told of the 401 to a request that came with a new token after
// another 401. Where others are served with it, the resource is the reason.
func (m *Manager) refusedAgain(t Token, resource string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch g := t.g; {
	case m.cur.Load() != g:
	case g.used.Load():
		m.defy(resource)
	case !m.doubts(g, resource):
		m.drop(g)
	}
}

// doubts notes that a resource refused a token that nobody was served with yet,
// and reports whether the token is given more time, as the successor of one that
// was good: others may be served, and then it is the resources that are to
// blame. The caller holds mu.
func (m *Manager) doubts(g *grant, resource string) bool {
	now := time.Now()
	if len(g.doubts) == 0 {
		g.doubted = now
	}
	if len(g.doubts) < doubtsKept && !slices.Contains(g.doubts, resource) {
		g.doubts = append(g.doubts, resource)
	}
	return g.heir && m.pace.unproven == 0 && now.Sub(g.doubted) < doubtFor
}

// defy notes that a resource refuses a token that is good. The caller holds mu.
func (m *Manager) defy(resource string) {
	if len(m.deaf) >= deafKept {
		clear(m.deaf)
	}
	if m.deaf == nil {
		m.deaf = map[string]time.Time{}
	}
	m.deaf[resource] = time.Now()
	m.defied.Store(true)
}

// discard empties cur if it is g. The caller holds mu.
func (m *Manager) discard(g *grant) bool {
	if g == nil || !m.cur.CompareAndSwap(g, nil) {
		return false
	}
	m.since = time.Now()
	m.metrics.expiry.Set(0)
	m.broadcast()
	return true
}

// Used notes that an answer came which shows the API to accept t.
func (m *Manager) Used(t Token) { m.served(t, nil) }

// served is Used with the request that was answered, or nil.
func (m *Manager) served(t Token, req *http.Request) {
	if t.g == nil || (t.g.used.Load() || t.g.used.Swap(true)) && !m.defied.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	resource := resourceOf(req)
	delete(m.deaf, resource)
	m.defied.Store(len(m.deaf) > 0)
	for _, other := range t.g.doubts {
		if other != resource {
			m.defy(other)
		}
	}
	t.g.doubts = nil
	if m.pace.unproven > 0 {
		m.log.Info("token accepted again", "attempt", m.pace.unproven+1)
		m.pace.unproven = 0
	}
}

// Renew drops the token held although the API accepts it, for an answer 403 that a newer token might change.
// It does so at most once a minute; false means that the token held, if any, is younger than that or that
// there is none.
func (m *Manager) Renew() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, g := time.Now(), m.cur.Load()
	if g == nil || (!m.renewed.IsZero() && now.Sub(m.renewed) < time.Minute) || !m.discard(g) {
		return false
	}
	m.renewed = now
	return true
}

// Retry ends the waiting that a refused key or refused tokens have caused: the key has changed.
func (m *Manager) Retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eased++
	if m.pace.reset() {
		m.broadcast()
	}
}

// Try requests a token once, now, whatever happened before, and returns why that failed. It is for a
// preflight check; everybody else uses Token.
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
	Err     string    // why there is trouble; empty where there is none. Holds no secret
	Since   time.Time // since when the failure lasts, or else since when a token is or is not held
}

// State returns how things stand.
func (m *Manager) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Since: m.since}
	if g := m.cur.Load(); g.usable(time.Now()) {
		s.Held, s.Expires = true, g.expires
	}
	if m.pace.err != nil {
		s.Refused, s.Err, s.Since = m.pace.err.Refused, m.pace.err.Error(), m.pace.since
	} else if m.pace.unproven > 0 {
		s.Err = "the API refuses tokens that it has just issued"
	}
	return s
}

// Secrets returns the set that the key and each token are added to, for texts from an API that echoes what it
// was sent.
func (m *Manager) Secrets() *redact.Secrets { return m.cfg.Secrets }

// waitError joins why the waiting ended with what it was waiting through.
func waitError(ctx context.Context, last *Error) error {
	if last == nil {
		return fmt.Errorf("wait for a token: %w", context.Cause(ctx))
	}
	return fmt.Errorf("wait for a token: %w (%w)", context.Cause(ctx), last)
}
