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

// guard protects the positions of vehicles and the memory of the process. If there
// is a token, a request must carry it as a bearer token, or as the password of basic
// authentication, for which browsers prompt. Queries and cookies are not accepted:
// queries end up in logs, and browsers send cookies along with requests of any page.
// Without a token, only requests from this machine are accepted.
type guard struct {
	token string
	bound net.Addr
	tried *attempts
}

func newGuard(token string, bound net.Addr, log *slog.Logger) *guard {
	return &guard{token: token, bound: bound, tried: newAttempts(log)}
}

// of guards a handler. page is its name in refusals.
func (g *guard) of(next http.Handler, page string) http.Handler {
	if g.token != "" {
		return g.requireToken(next, page)
	}
	open := Loopback(g.bound.String())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !open:
			http.Error(w, page+" is closed: the bridge listens on "+g.bound.String()+
				", which other machines can reach, and no BRIDGE_HTTP_TOKEN is set. Set one, or listen on 127.0.0.1.", http.StatusForbidden)
		case !Loopback(r.Host):
			// The request comes from a foreign page with a name that resolves to
			// 127.0.0.1, or through a proxy on this machine.
			http.Error(w, page+" is closed: the request was not made to a loopback address, and no BRIDGE_HTTP_TOKEN is set.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (g *guard) requireToken(next http.Handler, page string) http.Handler {
	// Digests have the same length, so the comparison does not reveal the token's length.
	want := sha256.Sum256([]byte(g.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := presented(r)
		if token == "" { // the first request of a browser has none
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

// challenge answers a request without the right token.
func challenge(w http.ResponseWriter, page string) {
	w.Header().Add("WWW-Authenticate", `Bearer realm="plaspy-bridge"`)
	w.Header().Add("WWW-Authenticate", `Basic realm="plaspy-bridge: any user name, BRIDGE_HTTP_TOKEN as password", charset="UTF-8"`)
	http.Error(w, page+" requires BRIDGE_HTTP_TOKEN as bearer token, or as password with any user name.", http.StatusUnauthorized)
}

// refuse answers a request from an address without a guess left.
func refuse(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	http.Error(w, tooManyGuesses, http.StatusTooManyRequests)
}

// presented returns the token that a request carries, or "".
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

// named refuses requests to a host name with a dot, if the bridge listens on
// loopback and has no token. It prevents DNS rebinding: a page that an operator
// visits could have its own name resolve to 127.0.0.1 and read the bridge's answers.
// Such a name has a dot; localhost, a bare host name and an address have none. If
// other machines can reach the bridge, or a token shows that there may be a proxy,
// the bridge cannot know its own names.
func named(next http.Handler, token string, bound net.Addr) http.Handler {
	if token != "" || !Loopback(bound.String()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(strings.TrimSuffix(host, "."), ".") {
			http.Error(w, "The bridge listens on loopback, "+bound.String()+", and only answers requests to that address or localhost.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Loopback reports whether a host, with or without a port, is loopback, judged by
// its text alone.
func Loopback(hostport string) bool {
	host := hostOf(hostport)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// hostOf returns a host without port and brackets.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}
