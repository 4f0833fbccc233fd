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

// routes are below /view/ but for the page itself, so that the bridge's other
// addresses stay apart from it.
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
// that the browser remembers. They could read none of it, but use up the room.
// Browsers tell the site only where they trust the address, the origin everywhere.
func sameSite(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		if site != "" && site != "none" && site != "same-origin" || origin != "" && !ofHost(origin, r.Host) {
			http.Error(w, "This is for the bridge's own page.", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

// ofHost reports whether an origin is the host's, by whatever scheme: a proxy may
// have taken TLS off.
func ofHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}

// serveEvents streams until the page goes, the view is over, or the page is too
// slow.
func (v *View) serveEvents(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy should not save up what is live
	if r.Method == http.MethodHead {
		return
	}
	c := v.join()
	if c == nil {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, "There is no room for another live view; close one.", http.StatusServiceUnavailable)
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
				return // it has gone, or takes nothing
			}
		}
	}
}

// errCutOff is of a stream that fell behind, or of a view that is over.
var errCutOff = errors.New("cut off")

// write writes one frame. A picture of everything may be large and a line slow, so
// patience is counted anew for every part, and who falls behind meanwhile still
// gets all of it. But not for ever: a page that takes a little now and then would
// keep its place, and an old picture in memory, for minutes.
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
		// The server's own deadline is for answers that end.
		if err := out.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return out.Flush()
}

// serveWhy tells the last decisions on the device that ?device= names.
func (v *View) serveWhy(w http.ResponseWriter, r *http.Request) {
	answer, ok := v.opts.Source.Why(r.URL.Query().Get("device"))
	if !ok {
		http.Error(w, "This replica does not poll that device.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // the asker may have gone
}

// lettersShown is how many dead letters the page lists; the rest is for the
// command line.
const lettersShown = 50

func (v *View) serveLetters(w http.ResponseWriter, r *http.Request) {
	if v.opts.DeadLetters == nil {
		http.NotFound(w, r)
		return
	}
	letters, err := v.opts.DeadLetters(r.Context(), lettersShown)
	if err != nil {
		v.opts.Log.Debug("could not read dead letters", "err", err)
		http.Error(w, "The dead letters cannot be read now.", http.StatusBadGateway)
		return
	}
	if letters == nil {
		letters = []DeadLetter{}
	}
	body, err := json.Marshal(letters)
	if err != nil { // no value of this type does that
		http.Error(w, "encode answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the asker may have gone
}
