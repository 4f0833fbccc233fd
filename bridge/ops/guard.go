package ops

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// guard lets only those requests through that may see the positions of vehicles,
// or the memory of the process. With a token: requests that carry it, as Authorization:
// Bearer, or as the password of basic authentication, which a browser can ask a
// person for. Never in a query or a cookie: the one ends up in logs, the other is
// sent along by any page. Without a token: every request, but only if no other
// machine can make one.
type guard struct {
	token string
	bound net.Addr
	tried *attempts
}

func newGuard(token string, bound net.Addr, log *slog.Logger) *guard {
	return &guard{token: token, bound: bound, tried: newAttempts(log)}
}

// of guards a handler; page names it in a refusal.
func (g *guard) of(next http.Handler, page string) http.Handler {
	if g.token != "" {
		return g.requireToken(next, page)
	}
	open := isLoopback(g.bound.String())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !open:
			http.Error(w, page+" is closed: the bridge listens on "+g.bound.String()+
				", which other machines can reach, and no BRIDGE_HTTP_TOKEN is set. Set one, or listen on 127.0.0.1.", http.StatusForbidden)
		case !isLoopback(r.Host):
			// A page from elsewhere whose name was made to resolve to 127.0.0.1, or a
			// proxy on this machine: either way the request comes from somewhere else.
			http.Error(w, page+" is closed: the request was not made to a loopback address, and no BRIDGE_HTTP_TOKEN is set.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (g *guard) requireToken(next http.Handler, page string) http.Handler {
	// Digests have one length, so that comparing reveals nothing about the token's.
	want := sha256.Sum256([]byte(g.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := presented(r)
		if token == "" { // a browser asks without one first
			challenge(w, page)
			return
		}
		wait, ok := g.tried.turn(r.RemoteAddr, time.Now())
		if !ok {
			refuse(w, turnsWaiting*turnEvery)
			return
		}
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.Context().Done():
				return
			}
		}
		got := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		if wait := g.tried.wrong(r.RemoteAddr, got, time.Now()); wait > 0 {
			refuse(w, wait)
			return
		}
		challenge(w, page)
	})
}

// challenge asks for a token.
func challenge(w http.ResponseWriter, page string) {
	w.Header().Add("WWW-Authenticate", `Bearer realm="plaspy-bridge"`)
	w.Header().Add("WWW-Authenticate", `Basic realm="plaspy-bridge: any user name, BRIDGE_HTTP_TOKEN as password", charset="UTF-8"`)
	http.Error(w, page+" wants BRIDGE_HTTP_TOKEN as bearer token, or as password under any user name.", http.StatusUnauthorized)
}

// refuse answers an address that has no guess left.
func refuse(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	http.Error(w, tooManyGuesses, http.StatusTooManyRequests)
}

// presented returns the token that a request carries, or nothing.
func presented(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// named answers only requests that were made to this machine by a name that other
// machines cannot give it. Otherwise a page that an operator visits could have its
// own name resolve to 127.0.0.1 and read here as if it were the bridge's. That
// takes a name with a dot: localhost, a bare host name and an address have none. If
// other machines can reach the bridge, or a token shows that a proxy may be in
// front, the bridge cannot know its names.
func named(next http.Handler, token string, bound net.Addr) http.Handler {
	if token != "" || !isLoopback(bound.String()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(strings.TrimSuffix(host, "."), ".") {
			http.Error(w, "The bridge listens on loopback, "+bound.String()+", and answers to that address or localhost, not to the name in the request.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether a host, with or without a port, is this machine by
// its name alone.
func isLoopback(hostport string) bool {
	host := hostOf(hostport)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// hostOf is a host without its port, if it has one, and without brackets.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}
