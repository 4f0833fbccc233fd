package ops

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Limits of wrong tokens from one address: a few at once, for mistakes, then so
// slowly that even a short token takes years. The right token is let in all the
// same, at the pace of the guesses: behind a proxy everybody has one address, and
// one person with an old token must not lock the others out.
const (
	guessesAtOnce  = 10
	guessEvery     = 6 * time.Second
	turnEvery      = 50 * time.Millisecond // for an address without a guess left
	turnsWaiting   = 64                    // more requests of it are refused unseen
	guessersKnown  = 1024                  // addresses; all others share one account
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
	full   time.Time         // when it may try guessesAtOnce again; a bucket that drains
	turn   time.Time         // when its last request is looked at
	last   [sha256.Size]byte // digest of the last wrong token
	logged bool              // that it was slowed down
}

func newAttempts(log *slog.Logger) *attempts {
	return &attempts{log: log, known: make(map[netip.Prefix]*guesser)}
}

// turn returns how long a request with a token must wait before the token is
// compared, and false if it is to be refused unseen.
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

// wrong counts a wrong token. The same one again, as a script or a page with an
// old token sends it, is no new guess. It returns how long the address has no
// guess left; 0 means that it has one.
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

// left is positive while there is a guess left. Otherwise its negative is the time
// until there is one.
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

// openLocked returns the account of an address, a new one if it has none. If
// there is no room, it forgets the accounts that have all guesses left; if there
// are none, the address shares an account.
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
	p, _ := ip.Prefix(bits) // the number of bits is right
	return p
}
