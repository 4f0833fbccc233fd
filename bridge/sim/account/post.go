package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/route"
)

// Post is a POST of a location or an alert that the API accepted.
type Post struct {
	Seq      uint64    `json:"seq"` // of the request, over all requests
	At       time.Time `json:"at"`
	Token    int64     `json:"token"`    // see Shown.Token
	Endpoint string    `json:"endpoint"` // "locations" or "alerts"
	Device   string    `json:"device"`
	Key      string    `json:"key,omitempty"` // the Idempotency-Key header
	Body     string    `json:"body"`          // byte for byte, see Shown.Raw
	// Repeated means that the key was known, so nothing was stored again.
	Repeated bool `json:"repeated,omitempty"`
	// Fault is the kind of fault that the client got instead of the answer,
	// if one did; the API had accepted the post by then.
	Fault fault.Kind `json:"fault,omitempty"`
}

// Posts returns the posts that the API accepted for a device, in order, as far as
// Options.Record keeps them.
func (a *Account) Posts(id string) []Post {
	d := a.Device(id)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.taken)
}

// Submission is the body of a POST, parsed.
type Submission struct {
	endpoint route.Endpoint // Locations or Alerts
	from, to time.Time
	at       time.Time       // of the location
	location json.RawMessage // nil if the body has none
	alert    string          // empty if the body has none
}

// ParseSubmission reads the body of a POST to an endpoint that stores. The error
// is one that the API reports.
func ParseSubmission(body []byte, e route.Endpoint) (p Submission, err error) {
	var b struct {
		From, To  string
		Location  json.RawMessage
		AlertName string
	}
	if err := json.Unmarshal(body, &b); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return p, fmt.Errorf("the %s field has the wrong type", strings.ToLower(wrong.Field))
		}
		return p, errors.New("the body is not a JSON object")
	}
	p = Submission{endpoint: e, alert: b.AlertName}
	if p.from, err = parseTime(b.From); err != nil {
		return p, fmt.Errorf("the from field %w", err)
	}
	if p.to, err = parseTime(b.To); err != nil {
		return p, fmt.Errorf("the to field %w", err)
	}
	if p.to.Before(p.from) {
		return p, errors.New("the to field lies before the from field")
	}
	if e == route.Alerts || len(b.Location) == 0 || string(b.Location) == "null" {
		return p, nil
	}
	p.location = b.Location
	p.at, err = checkLocation(b.Location)
	return p, err
}

// checkLocation returns a location's own time, and its first error.
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

// parseTime reads ISO 8601 as the API does: with any fraction, and in UTC if
// there is no offset.
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
