package ops

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard lets only those through to the page who may see where vehicles are. With
// a token: who sends it, as Authorization: Bearer, or as the password of basic
// authentication, which is what a browser can ask a person for. Never in a query
// or a cookie: the one ends up in logs, the other is sent along by any page.
// Without a token: everybody, but only where nobody beyond this machine can ask.
func guard(next http.Handler, token string, bound net.Addr) http.Handler {
	if token != "" {
		return requireToken(next, token)
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

func requireToken(next http.Handler, token string) http.Handler {
	// Digests are of one length, so that comparing tells nothing about the token's.
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(presented(r)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
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

// isLoopback reports whether a host, with or without a port, is this machine by
// its name alone.
func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}
