package ops

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Limits of wrong tokens from one address: a few at once, for mistakes, then so few
// that guessing even a short token takes years. The right token is still accepted,
// at the same pace. Behind a proxy all users share one address, and a user with an
// old token must not lock out the others.
const (
	guessesAtOnce  = 10
	guessEvery     = 6 * time.Second
	turnEvery      = 50 * time.Millisecond // between requests of an address without a guess left
	turnsWaiting   = 64                    // further requests are refused without a comparison
	guessersKnown  = 1024                  // addresses with accounts; all others share one
	guesserBits6   = 64                    // an IPv6 address counts as its whole network
	tooManyGuesses = "Too many wrong tokens came from this address. Wait a minute."
)

// attempts limits wrong tokens by the address that they come from. It holds no
// token, and a bounded number of addresses. It is safe for concurrent use.
type attempts struct {
	log *slog.Logger

	mu    sync.Mutex
	known map[netip.Prefix]*guesser
}

// guesser is the account of one address.
type guesser struct {
	full   time.Time         // when guessesAtOnce are left again; a token bucket
	turn   time.Time         // when the last waiting request is handled
	last   [sha256.Size]byte // digest of the last wrong token
	logged bool              // the delay was logged
}

func newAttempts(log *slog.Logger) *attempts {
	return &attempts{log: log, known: make(map[netip.Prefix]*guesser)}
}

// turn returns how long a request must wait before its token is compared, and false
// if the request is to be refused.
func (a *attempts) turn(remote string, now time.Time) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.accountLocked(network(remote))
	if g == nil || g.left(now) > 0 {
		return 0, true
	}
	next := g.turn.Add(turnEvery)
	if next.Before(now) {
		next = now
	}
	if wait = next.Sub(now); wait > turnsWaiting*turnEvery {
		return 0, false
	}
	g.turn = next
	return wait, true
}

// wrong counts a wrong token. A repetition of the last one, as scripts and pages
// with an old token send it, does not count. It returns the time until the address
// has a guess again; 0 means that it has one.
func (a *attempts) wrong(remote string, digest [sha256.Size]byte, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.openLocked(network(remote), now)
	if left := g.left(now); g.last == digest || left <= 0 {
		return max(0, -left)
	}
	g.last = digest
	if g.full.Before(now) {
		g.full, g.logged = now, false
	}
	g.full = g.full.Add(guessEvery)
	if !g.logged && g.left(now) <= 0 {
		g.logged = true
		a.log.Warn("repeated wrong BRIDGE_HTTP_TOKEN, delaying requests from this address", "remote", remote)
	}
	return 0
}

// left is positive if there is a guess left. If it is negative, the next guess is
// that far away.
func (g *guesser) left(now time.Time) time.Duration {
	return guessesAtOnce*guessEvery - max(0, g.full.Sub(now)) - guessEvery + 1
}

// accountLocked returns the account of an address; nil if it has none.
func (a *attempts) accountLocked(from netip.Prefix) *guesser {
	g := a.known[from]
	if g == nil && len(a.known) >= guessersKnown {
		g = a.known[netip.Prefix{}]
	}
	return g
}

// openLocked returns the account of an address, and makes it if it has none. If the
// table is full, accounts with all guesses left are removed. If that is not enough,
// the address uses the shared account.
func (a *attempts) openLocked(from netip.Prefix, now time.Time) *guesser {
	if g := a.known[from]; g != nil {
		return g
	}
	if len(a.known) >= guessersKnown {
		for p, g := range a.known {
			if g.full.Before(now) {
				delete(a.known, p)
			}
		}
	}
	if len(a.known) >= guessersKnown {
		from = netip.Prefix{}
		if g := a.known[from]; g != nil {
			return g
		}
	}
	g := &guesser{}
	a.known[from] = g
	return g
}

// network returns the prefix that an address is counted as; the zero prefix if it
// is not an address.
func network(remote string) netip.Prefix {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := addr.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = guesserBits6
	}
	p, _ := ip.Prefix(bits) // bits is always in range
	return p
}
