package auth

import (
	"time"

	"plaspy-bridge/auth/backoff"
)

// The rules about refused tokens are in the package comment.
const (
	young       = 10 * time.Second // a token that is refused at this age or earlier did not last
	doubtFor    = 2 * time.Second  // how long a refused token is kept if other requests may succeed with it
	renewEvery  = time.Minute      // the least time between two drops of a working token
	workedMax   = 2 * time.Second  // the longest spacing after tokens that worked before they were refused
	unworkedMax = 2 * time.Minute  // the longest spacing after tokens that never worked
)

// refused handles a 401, and reports whether the request should be sent again with another token. A replay
// never drops its token.
func (m *Manager) refused(t Token, replay bool) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, now := t.g, time.Now()
	if m.cur.Load() != g {
		return !replay // there is a newer one
	}
	if !g.doubted.Swap(true) {
		g.doubtedAt = now
	}
	othersServed := g.survived || g.follows && (!g.worked.Load() || m.early > 0)
	switch {
	case replay:
		return false
	case !othersServed || now.Sub(g.doubtedAt) >= doubtFor:
		m.dropLocked(g, now)
		return true
	}
	return g.survived && m.renewLocked(g, now)
}

// dropLocked discards a refused token and spaces out the requests for the next ones if it did not last.
func (m *Manager) dropLocked(g *grant, now time.Time) {
	m.discardLocked(g)
	if g.worked.Load() {
		m.renewed = now
	}
	if g.doubtedAt.Sub(g.issued) >= young {
		m.lastingLocked()
		m.log.Info("token refused by the API, requesting a new one", "elapsed", now.Sub(g.issued))
		return
	}
	m.early++
	if m.early < 2 {
		return
	}
	limit := unworkedMax
	if g.worked.Load() {
		limit = workedMax
	}
	delay := backoff.Delay(leastSpacing, limit, m.early-2)
	m.pace.hold(now.Add(delay))
	if m.early == 2 {
		m.log.Warn("tokens are refused soon after they were issued, spacing out token requests; is this API key in use elsewhere?", "delay", delay)
	}
}

// lastingLocked ends a series of tokens that did not last.
func (m *Manager) lastingLocked() {
	if m.early > 1 {
		m.log.Info("tokens are accepted again", "attempt", m.early+1)
	}
	m.early = 0
}

// renewLocked discards a working token, at most once a minute.
func (m *Manager) renewLocked(g *grant, now time.Time) bool {
	if !m.renewed.IsZero() && now.Sub(m.renewed) < renewEvery || !m.discardLocked(g) {
		return false
	}
	m.renewed = now
	return true
}

// accepted records an answer which shows that the API accepts the token.
func (m *Manager) accepted(t Token) {
	g := t.g
	if g.worked.Load() && !g.doubted.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.doubted.Swap(false) {
		g.survived = true
	}
	if !g.worked.Swap(true) && !g.follows {
		m.lastingLocked()
	}
}

// Renew drops a token that the API accepted, for an answer, such as 403, that a newer token might change. The
// zero Token stands for the one held. Renew reports whether the request should be sent again with another token:
// t is no longer held, or it was dropped now. It drops none within a minute of another one that had worked.
func (m *Manager) Renew(t Token) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.cur.Load()
	switch {
	case t.g != nil && g != t.g:
		return true
	case g == nil:
		return false
	}
	return m.renewLocked(g, time.Now())
}
