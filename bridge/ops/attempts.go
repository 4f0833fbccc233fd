package ops

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// How many wrong tokens an address may try: a few at once, for who mistypes, then
// so slowly that even a short token takes years.
const (
	guessesAtOnce  = 10
	guessEvery     = 6 * time.Second
	guessersKnown  = 1024 // addresses; all others share one account
	guesserBits6   = 64   // who has one address of IPv6 has all of its network
	tooManyGuesses = "Too many wrong tokens came from this address. Wait a minute."
)

// attempts limits wrong tokens by the address that they come from. It holds no
// token, and a bounded number of addresses. It is safe for concurrent use.
type attempts struct {
	log *slog.Logger

	mu    sync.Mutex
	known map[netip.Prefix]*guesser
}

// guesser is what is known of one address.
type guesser struct {
	full time.Time         // when it may try guessesAtOnce again; a bucket that drains
	last [sha256.Size]byte // digest of the last wrong token
	told bool              // that it is held up was logged
}

func newAttempts(log *slog.Logger) *attempts {
	return &attempts{log: log, known: make(map[netip.Prefix]*guesser)}
}

// wait is how long an address must wait until it may try again; 0: it may.
func (a *attempts) wait(remote string, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.known[network(remote)]
	if g == nil {
		g = a.known[netip.Prefix{}]
		if g == nil || len(a.known) < guessersKnown {
			return 0
		}
	}
	return max(0, g.full.Sub(now)-(guessesAtOnce-1)*guessEvery)
}

// wrong notes a wrong token. The same one again, as a script or a page with an old
// token sends it, is no new guess.
func (a *attempts) wrong(remote string, digest [sha256.Size]byte, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.guesser(network(remote), now)
	if g.last == digest {
		return
	}
	g.last = digest
	if g.full.Before(now) {
		g.full, g.told = now, false
	}
	g.full = g.full.Add(guessEvery)
	if !g.told && g.full.Sub(now) > (guessesAtOnce-1)*guessEvery {
		g.told = true
		a.log.Warn("wrong tokens for the live view, that address is slowed down", "remote", remote)
	}
}

// guesser runs under the mutex. Where there is no room, it forgets who may try at
// will; where there is nobody such, the newcomer shares an account.
func (a *attempts) guesser(from netip.Prefix, now time.Time) *guesser {
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

// network is what an address is counted as; the zero prefix where it is none.
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
