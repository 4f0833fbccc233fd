package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/route"
)

// maxBody is the longest request body taken, in bytes.
const maxBody = 1 << 20

// Post is a POST of a location or an alert that the API accepted.
type Post struct {
	Seq      uint64    `json:"seq"` // of the request, over all requests
	At       time.Time `json:"at"`
	Token    int64     `json:"token"`    // see Shown.Token
	Endpoint string    `json:"endpoint"` // "locations" or "alerts"
	Device   string    `json:"device"`
	Key      string    `json:"key,omitempty"` // the Idempotency-Key header
	Body     string    `json:"body"`          // byte for byte, see Shown.Raw
	// Repeated: the key was known, so nothing was stored a second time.
	Repeated bool `json:"repeated,omitempty"`
	// Fault is the kind of fault that the client got instead of the answer,
	// if one did; the API had accepted the post by then.
	Fault fault.Kind `json:"fault,omitempty"`
}

// Posts are those that the API accepted for a device, in order, as far as
// Options.Record keeps them.
func (s *Server) Posts(id string) []Post {
	d := s.find(id)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.taken)
}

// postBody is the body of both POST endpoints.
type postBody struct {
	From, To  string
	Location  json.RawMessage
	AlertName string

	from, to time.Time
	at       time.Time // of the location
}

// submitted is an alert that was posted.
type submitted struct {
	at   time.Time
	name string
}

// post is POST .../locations and .../alerts, under both readings of the
// documentation. A body with a location stores it, a body without asks. An
// alertName with an instant for a range (from equals to) raises an alert, with
// a range it filters. Either way the answer has the entries in the range.
func (s *Server) post(r *http.Request, c *call) answer {
	if !isJSON(r) {
		return s.failure(http.StatusUnsupportedMediaType, "Content-Type must be application/json.")
	}
	body, ok := readBody(r)
	if !ok {
		return s.failure(http.StatusRequestEntityTooLarge, "Request body too large.")
	}
	var p postBody
	if err := p.parse(body, c.endpoint); err != nil {
		return s.failure(http.StatusBadRequest, "Validation failed: "+err.Error())
	}
	return s.accept(c, &p, Post{
		Seq: c.seq, At: time.Now(), Token: c.token, Endpoint: c.endpoint.String(), Device: c.id,
		Key: r.Header.Get("Idempotency-Key"), Body: string(body),
	})
}

// accept stores a valid post, unless its key is known, and answers it.
func (s *Server) accept(c *call, p *postBody, taken Post) answer {
	d := c.device
	if c.fault != nil {
		taken.Fault = c.fault.Kind
	}
	key := taken.Endpoint + " " + taken.Key
	d.mu.Lock()
	defer d.mu.Unlock()
	var first []byte
	first, taken.Repeated = d.seen[key]
	if s.opts.Record > 0 {
		d.taken = appendBounded(d.taken, taken, s.opts.Record)
	}
	if taken.Repeated {
		a := newAnswer(http.StatusOK)
		a.body = append(a.body, first...)
		return a
	}
	d.accepted++
	list, n := d.take(p, c.endpoint, taken.At)
	d.use(taken.At, n)
	a := s.success(max(1, n))
	a.body = fmt.Appendf(a.body, `,"%s":%s}`, taken.Endpoint, list)
	if s.opts.Idempotent && taken.Key != "" {
		d.remember(key, a.body)
	}
	return a
}

// take stores the entries of a post and returns the entries in its range, as a JSON
// array and its length.
func (d *device) take(p *postBody, e route.Endpoint, now time.Time) (list []byte, n int) {
	if e == route.Alerts {
		if p.AlertName != "" && p.from.Equal(p.to) {
			d.raised = appendBounded(d.raised, submitted{p.from, p.AlertName}, d.keep)
		}
		return d.alertsBetween(p, now)
	}
	if p.Location != nil {
		if st := d.store(p.at, p.Location); d.newest.raw == nil || !st.at.Before(d.newest.at) {
			d.newest = st
		}
	}
	return d.locationsBetween(p, now)
}

func (p *postBody) parse(body []byte, e route.Endpoint) (err error) {
	if err = json.Unmarshal(body, p); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("the %s field has the wrong type", strings.ToLower(wrong.Field))
		}
		return errors.New("the body is not a JSON object")
	}
	if p.from, err = parseTime(p.From); err != nil {
		return fmt.Errorf("the from field %w", err)
	}
	if p.to, err = parseTime(p.To); err != nil {
		return fmt.Errorf("the to field %w", err)
	}
	if p.to.Before(p.from) {
		return errors.New("the to field lies before the from field")
	}
	if e == route.Alerts || len(p.Location) == 0 || string(p.Location) == "null" {
		p.Location = nil
		return nil
	}
	p.at, err = checkLocation(p.Location)
	return err
}

// checkLocation returns a location's own time, and the errors of the
// location.
func checkLocation(raw json.RawMessage) (at time.Time, err error) {
	var l struct {
		DateTime            string
		Latitude, Longitude *float64
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return time.Time{}, errors.New("the location has a field of the wrong type, or is no object")
	}
	if at, err = parseTime(l.DateTime); err != nil {
		return time.Time{}, fmt.Errorf("the location.dateTime field %w", err)
	}
	if l.Latitude == nil || *l.Latitude < -90 || *l.Latitude > 90 {
		return at, errors.New("the location.latitude field is missing or out of range")
	}
	if l.Longitude == nil || *l.Longitude < -180 || *l.Longitude > 180 {
		return at, errors.New("the location.longitude field is missing or out of range")
	}
	return at, nil
}

// parseTime reads ISO 8601 as the API does: any fraction, and UTC if there
// is no offset.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, errors.New("is required")
	}
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("is not an ISO 8601 time")
}

// locationsBetween returns the device's fixes and posted locations, by their own
// times. Fixes that are not visible yet are not among them.
func (d *device) locationsBetween(p *postBody, now time.Time) (list []byte, n int) {
	list = []byte{'['}
	appendOne := func(raw []byte, hole int) {
		if n++; n > 1 {
			list = append(list, ',')
		}
		if hole < 0 {
			list = append(list, raw...)
			return
		}
		list = append(list, raw[:hole]...)
		list = append(list, '0') // inactiveSeconds, when it was measured
		list = append(list, raw[hole:]...)
	}
	others := d.stored
	appendUntil := func(t time.Time, including bool) {
		for len(others) > 0 && (others[0].at.Before(t) || including && others[0].at.Equal(t)) {
			if !others[0].at.Before(p.from) {
				appendOne(others[0].raw, -1)
			}
			others = others[1:]
		}
	}
	var buf []byte
	d.history(now, func(f *fleet.Fix) {
		at := f.Time()
		if at.Before(p.from) || at.After(p.to) {
			return
		}
		appendUntil(at, false)
		var hole int
		buf, hole = f.AppendJSON(buf[:0])
		appendOne(buf, hole)
	})
	appendUntil(p.to, true)
	return append(list, ']'), n
}

// history calls f with the vehicle's own reports, up to a pin.
func (d *device) history(now time.Time, f func(*fleet.Fix)) {
	if d.pinned {
		now = d.pinnedAt
	}
	d.fleet.History(now, f)
}

// alertsBetween are the alerts raised in a range, each at the fix that has it
// and the one before had not, and those that were posted.
func (d *device) alertsBetween(p *postBody, now time.Time) (list []byte, n int) {
	type alert struct {
		DateTime      string   `json:"dateTime"`
		Latitude      float64  `json:"latitude"`
		Longitude     float64  `json:"longitude"`
		Text          string   `json:"text"`
		Notifications []string `json:"notifications"`
		Alerts        []string `json:"alerts"`
		at            time.Time
	}
	all := []alert{}
	add := func(f *fleet.Fix, at time.Time, text, name string) {
		if at.Before(p.from) || at.After(p.to) || p.AlertName != "" && p.AlertName != name {
			return
		}
		lat, lon := f.Position()
		all = append(all, alert{
			at.UTC().Format("2006-01-02T15:04:05.000Z"), lat, lon, text,
			[]string{"operator@example.com"}, []string{name}, at,
		})
	}
	var before fleet.Alert
	var last fleet.Fix
	d.history(now, func(f *fleet.Fix) {
		(f.Alerts() &^ before).Each(func(a fleet.Alert) { add(f, f.Time(), f.Text(a), a.String()) })
		before, last = f.Alerts(), *f
	})
	for _, r := range d.raised {
		add(&last, r.at, r.name, r.name)
	}
	slices.SortStableFunc(all, func(a, b alert) int { return a.at.Compare(b.at) })
	return mustJSON(all), len(all)
}

// readBody reads a request's body; ok is false if it is too long. A client
// that leaves early gets no answer.
func readBody(r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return body, len(body) <= maxBody
}
