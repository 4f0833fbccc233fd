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

// guard lets only those through to the page who may see where vehicles are. With
// a token: who sends it, as Authorization: Bearer, or as the password of basic
// authentication, which is what a browser can ask a person for. Never in a query
// or a cookie: the one ends up in logs, the other is sent along by any page.
// Without a token: everybody, but only where nobody beyond this machine can ask.
func guard(next http.Handler, token string, bound net.Addr, log *slog.Logger) http.Handler {
	if token != "" {
		return requireToken(next, token, newAttempts(log))
	}
	open := isLoopback(bound.String())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !open:
			http.Error(w, "The live view is closed: the bridge listens on "+bound.String()+
				", which other machines can reach, and no BRIDGE_HTTP_TOKEN is set. Set one, or listen on 127.0.0.1.", http.StatusForbidden)
		case !isLoopback(r.Host):
			// A page from elsewhere whose name was made to resolve to 127.0.0.1, or a
			// proxy on this machine: either way somebody else is looking.
			http.Error(w, "The live view is closed: the request was not made to a loopback address, and no BRIDGE_HTTP_TOKEN is set.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func requireToken(next http.Handler, token string, tried *attempts) http.Handler {
	// Digests are of one length, so that comparing tells nothing about the token's.
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Who has no guess left is not told whether this one was right either.
		if wait := tried.wait(r.RemoteAddr, time.Now()); wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
			http.Error(w, tooManyGuesses, http.StatusTooManyRequests)
			return
		}
		said := presented(r)
		got := sha256.Sum256([]byte(said))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			if said != "" { // a browser asks without one first
				tried.wrong(r.RemoteAddr, got, time.Now())
			}
			w.Header().Add("WWW-Authenticate", `Bearer realm="plaspy-bridge"`)
			w.Header().Add("WWW-Authenticate", `Basic realm="plaspy-bridge: any user name, BRIDGE_HTTP_TOKEN as password", charset="UTF-8"`)
			http.Error(w, "The live view wants BRIDGE_HTTP_TOKEN as bearer token, or as password under any user name.", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
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

// named answers only requests that were made to this machine by a name that
// nobody elsewhere can give it. A page that an operator visits could else have its
// own name resolve to 127.0.0.1 and read here as if it were the bridge's. That
// takes a name with a dot: localhost, a bare host name and an address are none.
// Where others can reach the bridge, or a token says that a proxy may be in front,
// names are not the bridge's to know.
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
