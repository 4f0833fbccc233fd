package auth

import (
	"context"
	"time"
)

// flight is a series of attempts to get a token, for which all callers wait together. It ends with a token, or
// when the last caller has left.
type flight struct {
	before  *flight // the previous flight, which ends first
	waiters int     // guarded by Manager.mu
	asking  bool    // guarded by Manager.mu: a request is in flight, not a wait
	cancel  context.CancelFunc
	done    chan struct{}
}

// await waits until the token held satisfies enough.
func (m *Manager) await(ctx context.Context, enough func(*grant, time.Time) bool) (*grant, error) {
	for {
		if ctx.Err() != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			return nil, waitError(ctx, m.pace.err)
		}
		m.mu.Lock()
		if g := m.cur.Load(); enough(g, time.Now()) {
			m.mu.Unlock()
			return g, nil
		}
		f := m.boardLocked()
		m.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		m.leave(f)
	}
}

// boardLocked joins the flight under way or starts one, which [Manager.Run] waits for at its end.
func (m *Manager) boardLocked() *flight {
	if m.flight == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f := &flight{before: m.latest, cancel: cancel, done: make(chan struct{})}
		m.flight, m.latest = f, f
		// It has its own goroutine, because any waiter may leave while others stay.
		go m.fly(ctx, f)
	}
	m.flight.waiters++
	return m.flight
}

// leave ends the flight with its last waiter.
func (m *Manager) leave(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	f.cancel()
	if m.flight == f {
		m.flight = nil
	}
	if f.asking {
		// An abandoned request is not a failure of the API. But callers that come and go must not send one each.
		m.pace.hold(time.Now().Add(leastSpacing))
	}
}

func (m *Manager) fly(ctx context.Context, f *flight) {
	defer func() {
		m.mu.Lock()
		if m.flight == f {
			m.flight = nil
		}
		m.mu.Unlock()
		close(f.done)
	}()
	if f.before != nil {
		<-f.before.done
		f.before = nil
	}
	for m.rest(ctx) {
		m.ask(f, true)
		err := m.attempt(ctx)
		m.ask(f, false)
		if err == nil {
			return
		}
	}
}

func (m *Manager) ask(f *flight, asking bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.asking = asking
}

// rest waits until the next token request may be sent. It returns false if ctx is done.
func (m *Manager) rest(ctx context.Context) bool {
	for ctx.Err() == nil {
		m.mu.Lock()
		delay, wake := time.Until(m.pace.next), m.wake
		m.mu.Unlock()
		if delay <= 0 {
			return true
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return false
}

// broadcastLocked wakes the goroutines that wait for a change.
func (m *Manager) broadcastLocked() {
	close(m.wake)
	m.wake = make(chan struct{})
}

// attempt sends one token request and records its outcome.
func (m *Manager) attempt(ctx context.Context) error {
	m.mu.Lock()
	keyChanges := m.keyChanges
	m.mu.Unlock()
	g, failure := m.request(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	switch {
	case failure == nil:
		m.installLocked(g, now)
		return nil
	case ctx.Err() != nil:
		return failure
	}
	m.bookLocked(failure, now)
	if failure.Refused && keyChanges != m.keyChanges {
		m.pace.keyChanged() // while the old one was being refused
	}
	return failure
}

// installLocked makes g the token held.
func (m *Manager) installLocked(g *grant, now time.Time) {
	if p := &m.pace; p.err != nil {
		m.log.Info("token requests succeed again", "attempt", p.tries+1, "elapsed", now.Sub(p.since))
	}
	m.pace = pace{}
	if !m.issued.IsZero() && g.issued.Sub(m.issued) < young {
		m.pace.next = g.issued.Add(leastSpacing)
	}
	m.issued = g.issued
	if old := m.cur.Load(); old != nil {
		m.worked = old.worked.Load()
		if now.Sub(old.issued) >= young {
			m.lastingLocked()
		}
	}
	g.follows = m.worked
	m.cur.Store(g)
	m.since = now
	if g.source != m.source && g.source == sourceDefault {
		m.log.Warn("token expiry is missing, unreadable or past; assuming ten minutes")
	}
	m.source = g.source
	m.metrics.ok.Inc()
	m.metrics.expiry.Set(float64(g.expires.UnixMilli()) / 1e3)
	m.broadcastLocked()
	m.log.Debug("token obtained", "elapsed", now.Sub(g.issued))
}

// bookLocked records a failure, and logs it if its kind is new.
func (m *Manager) bookLocked(failure *Error, now time.Time) {
	if failure.Refused {
		m.metrics.refused.Inc()
	} else {
		m.metrics.failed.Inc()
	}
	delay, changed := m.pace.failed(now, failure)
	switch {
	case !changed:
		m.log.Debug("token request failed again", "err", failure, "attempt", m.pace.tries, "delay", delay)
	case failure.Refused:
		m.log.Error("API key refused; check the user name and the key", "err", failure, "delay", delay)
	default:
		m.log.Warn("token request failed, retrying", "err", failure, "delay", delay)
	}
}
