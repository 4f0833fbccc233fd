package ops

import (
	"encoding/json"
	"net/http"
	"time"
)

// Readiness is the JSON that /readyz answers, with status 200 or 503.
type Readiness struct {
	Ready    bool                  `json:"ready"`
	Degraded bool                  `json:"degraded,omitempty"` // a part works but needs attention
	Version  string                `json:"version,omitempty"`
	Parts    map[string]PartStatus `json:"parts"`
}

// Liveness is the JSON that /livez answers, with status 200 or 503.
type Liveness struct {
	Live       bool                   `json:"live"`
	Heartbeats map[string]HeartStatus `json:"heartbeats"`
}

// serveReady answers /readyz of a program of this version.
func (h *Health) serveReady(version string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		ready, parts := h.Ready()
		answer(w, ready, Readiness{ready, degraded(parts), version, parts})
	}
}

func degraded(parts map[string]PartStatus) bool {
	for _, p := range parts {
		if p.Degraded {
			return true
		}
	}
	return false
}

// secondLook is the time that an overdue heartbeat gets before /livez fails. After a
// suspension of the process all heartbeats are overdue until they have beaten once.
const secondLook = 500 * time.Millisecond

func (h *Health) serveLive(w http.ResponseWriter, r *http.Request) {
	live, hearts := h.Live()
	if !live {
		select {
		case <-time.After(secondLook):
		case <-r.Context().Done():
		}
		live, hearts = h.Live()
	}
	answer(w, live, Liveness{live, hearts})
}

// answer writes v as JSON under 200 or 503.
func answer(w http.ResponseWriter, ok bool, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // values of these types can always be encoded
		http.Error(w, "could not encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // the client may have disconnected
}

// secure sets the headers that keep a browser from misusing an answer. A page that
// needs more sets its own.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// No handler reads a body, but the server discards it before the next
			// request, which a slow sender could draw out.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout)) // a recorder has none
		}
		next.ServeHTTP(w, r)
	})
}
