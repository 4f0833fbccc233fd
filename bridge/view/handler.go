package view

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// routes returns the handlers. All but the page itself are below /view/, apart from
// the bridge's other paths.
func (v *View) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for path, a := range assets() {
		mux.Handle("GET "+path, a)
	}
	mux.Handle("GET /view/events", sameSite(v.serveEvents))
	mux.Handle("GET /view/why", sameSite(v.serveWhy))
	mux.Handle("GET /view/letters", sameSite(v.serveLetters))
	return mux
}

// sameSite keeps pages of other hosts from opening streams with the credentials
// that the browser remembers. They could not read them, but would use up the limit.
// Browsers send Sec-Fetch-Site only to trustworthy addresses, and Origin to all.
func sameSite(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		if site != "" && site != "none" && site != "same-origin" || origin != "" && !ofHost(origin, r.Host) {
			http.Error(w, "Only the bridge's own page may request this.", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

// ofHost reports whether an origin is the host's. The scheme may differ, because a
// proxy may end TLS.
func ofHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}

// serveEvents streams until the page closes, the view ends, or the page is too slow.
func (v *View) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx must not buffer the stream
	if r.Method == http.MethodHead {
		return
	}
	c := v.join()
	if c == nil {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, "Too many live views are open; close one.", http.StatusServiceUnavailable)
		return
	}
	defer v.leave(c)
	for {
		select {
		case <-r.Context().Done():
			return
		case data, ok := <-c.frames:
			if !ok {
				return
			}
			if c.write(w, data) != nil {
				return // the page has closed or does not read
			}
		}
	}
}

// errCutOff is the error of a page that was disconnected while a frame was written.
var errCutOff = errors.New("disconnected")

// write writes one frame. A snapshot may be large and the connection slow, so each
// part has its own deadline, and a page that falls behind during the snapshot still
// gets all of it. The total is limited too: a page that reads a little now and then
// would hold its place, and an old snapshot in memory, for minutes.
func (c *client) write(w http.ResponseWriter, data []byte) error {
	out, began := http.NewResponseController(w), time.Now()
	for part := range slices.Chunk(data, partSize) {
		if time.Since(began) > longest {
			select {
			case <-c.cut:
				return errCutOff
			default:
			}
		}
		// The server's own deadline is too short for a stream.
		if err := out.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return out.Flush()
}

// serveWhy returns the last decisions on the device that ?device= names.
func (v *View) serveWhy(w http.ResponseWriter, r *http.Request) {
	answer, ok := v.opts.Source.Why(r.URL.Query().Get("device"))
	if !ok {
		http.Error(w, "This replica does not poll that device.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // the client may have disconnected
}

// lettersShown is the number of dead letters that the page lists. The dlq command
// lists all.
const lettersShown = 50

func (v *View) serveLetters(w http.ResponseWriter, r *http.Request) {
	if v.opts.DeadLetters == nil {
		http.NotFound(w, r)
		return
	}
	letters, err := v.opts.DeadLetters(r.Context(), lettersShown)
	if err != nil {
		v.opts.Log.Debug("could not read dead letters", "err", err)
		http.Error(w, "Could not read the dead letters.", http.StatusBadGateway)
		return
	}
	if letters == nil {
		letters = []DeadLetter{}
	}
	body, err := json.Marshal(letters)
	if err != nil { // values of this type can always be encoded
		http.Error(w, "could not encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client may have disconnected
}
