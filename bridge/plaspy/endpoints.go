package plaspy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"plaspy-bridge/auth/isotime"
	"plaspy-bridge/bridge/plaspy/rawjson"
)

// Device is one entry of the device list.
type Device struct {
	ID      string
	Name    string          // empty if absent
	Expires time.Time       // when it stops being active; zero if absent or unreadable
	Raw     json.RawMessage // the entry's bytes as the API gave them; not shared with other entries
}

// Group is one entry of the group list.
type Group struct {
	ID, Name string
	Devices  []string // ids
}

// Answer is a successful answer as it came. Body is JSON without a byte order mark.
type Answer struct {
	Status int
	Body   []byte
}

// LastLocation is the answer to a poll.
type LastLocation struct {
	// Raw is the value of lastLocation, a JSON object as the API gave it, part of Buf. Nil if the device has
	// never reported.
	Raw []byte
	// Buf holds the whole answer. Hand it to a later call for reuse once Raw is no longer needed; it is set
	// after an error, too.
	Buf []byte
	At  time.Time // when the answer was complete
}

// PostOptions are for [Client.Locations] and [Client.Alerts].
type PostOptions struct {
	IdempotencyKey string // sent as Idempotency-Key; empty means none. Printable ASCII
	// Before, if set, is asked immediately before the request is sent, with token and budget at hand, and again
	// before a replay. Its error keeps the request from being sent; the call returns it, wrapped.
	Before func() error
	// Refused, if set, is called when the answer refused the token: nothing is in flight from then on. The call
	// either returns that answer, or waits for another token, which can take long, and then asks Before again.
	Refused func()
}

// maxSkipped bounds the memory and the log lines that a list full of nonsense takes.
const maxSkipped = 100

// Devices returns the account's active devices in the API's order, duplicates included. Entries that are no
// object or have no usable id are left out; skipped says why, one error each for the first hundred.
func (c *Client) Devices(ctx context.Context) (devices []Device, skipped []error, err error) {
	r := &request{endpoint: epDevices, kind: List, bound: maxFleet}
	skipped, err = c.list(ctx, r, "devices", func(entry []byte) error {
		d, err := readDevice(entry)
		if err == nil {
			devices = append(devices, d)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return devices, skipped, nil
}

// DeviceList returns the answer about all devices as it came, up to 8 MiB. No more than four such answers are in
// memory at once; other calls wait.
func (c *Client) DeviceList(ctx context.Context) (Answer, error) {
	select {
	case c.queries <- struct{}{}:
		defer func() { <-c.queries }()
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("%s: %w", epDevices, context.Cause(ctx))
	}
	return c.answer(ctx, &request{endpoint: epDevices, kind: Query, bound: maxListQuery}, "devices")
}

// Groups returns the account's groups; skipped is as with Devices.
func (c *Client) Groups(ctx context.Context) (groups []Group, skipped []error, err error) {
	r := &request{endpoint: epGroups, kind: List, bound: maxFleet}
	skipped, err = c.list(ctx, r, "groups", func(entry []byte) error {
		g, err := readGroup(entry)
		if err == nil {
			groups = append(groups, g)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return groups, skipped, nil
}

// list fetches an array and hands each element to read. A list of which no element can be read is an error: to
// take it for an empty one would remove every device.
func (c *Client) list(ctx context.Context, r *request, payload string, read func([]byte) error) (skipped []error, err error) {
	p, env, err := c.call(ctx, r, payload)
	if err != nil {
		return nil, err
	}
	if env.payload == nil {
		return nil, c.bad(r, &p, "answer has no "+payload, nil)
	}
	if rawjson.IsNull(env.payload) {
		return nil, nil // how many serializers write an empty list
	}
	n, readable := 0, 0
	err = rawjson.Elements(env.payload, func(entry []byte) bool {
		err := read(entry)
		if err != nil && len(skipped) < maxSkipped {
			skipped = append(skipped, fmt.Errorf("%s entry %d: %w", payload, n, err))
		}
		if _, unusable := errors.AsType[*IDError](err); err == nil || unusable {
			readable++
		}
		n++
		return true
	})
	switch {
	case err != nil:
		return nil, c.bad(r, &p, payload+" is no array", err)
	case n > 0 && readable == 0:
		return nil, c.bad(r, &p, "no entry can be read", skipped[0])
	}
	return skipped, nil
}

func readDevice(entry []byte) (Device, error) {
	d := Device{Raw: bytes.Clone(entry)}
	var id, expires string
	hasID := false
	err := rawjson.Members(entry, func(key, value []byte) bool {
		switch string(key) {
		case "id":
			id, hasID = text(value)
		case "name":
			d.Name, _ = text(value)
		case "expires":
			expires, _ = text(value)
		}
		return true
	})
	if err != nil {
		return d, fmt.Errorf("not an object: %w", err)
	}
	if !hasID {
		return d, errors.New("id is missing or no string")
	}
	if d.ID = id; expires != "" {
		d.Expires, _, _ = isotime.Parse(expires) // zero if it cannot be read, as documented
	}
	return d, CheckID(id)
}

func readGroup(entry []byte) (Group, error) {
	var g Group
	hasID := false
	var devices []byte
	err := rawjson.Members(entry, func(key, value []byte) bool {
		switch string(key) {
		case "id":
			g.ID, hasID = name(value)
		case "name":
			g.Name, _ = text(value)
		case "devices":
			devices = value
		}
		return true
	})
	if err != nil {
		return g, fmt.Errorf("not an object: %w", err)
	}
	if !hasID && g.Name == "" {
		return g, errors.New("has neither id nor name")
	}
	if devices == nil || rawjson.IsNull(devices) {
		return g, nil
	}
	err = rawjson.Elements(devices, func(value []byte) bool {
		if id, ok := name(value); ok {
			g.Devices = append(g.Devices, id)
		}
		return true
	})
	if err != nil {
		return g, fmt.Errorf("devices is no array: %w", err)
	}
	return g, nil
}

// name reads the id of a group or of a member. A number is as good as a string.
func name(value []byte) (string, bool) {
	if id, ok := text(value); ok {
		return id, true
	}
	if len(value) > 0 && value[0] >= '0' && value[0] <= '9' {
		return string(value), true
	}
	return "", false
}

func text(value []byte) (string, bool) {
	b, ok := rawjson.Unquote(value)
	return string(b), ok
}

// Device returns the answer about one device as it came.
func (c *Client) Device(ctx context.Context, id string) (Answer, error) {
	return c.answer(ctx, &request{endpoint: epDevice, kind: Query, id: id, bound: maxAnswer}, "device")
}

// Locations posts body to the device's locations and returns the answer as it came. It is sent once, twice
// only after a 401; an error without a status leaves open whether the API took it.
func (c *Client) Locations(ctx context.Context, id string, body []byte, opt PostOptions) (Answer, error) {
	return c.answer(ctx, postRequest(epLocations, id, "/locations", body, opt), "locations")
}

// Alerts posts body to the device's alerts; otherwise it is as Locations.
func (c *Client) Alerts(ctx context.Context, id string, body []byte, opt PostOptions) (Answer, error) {
	return c.answer(ctx, postRequest(epAlerts, id, "/alerts", body, opt), "alerts")
}

func postRequest(ep endpoint, id, tail string, body []byte, opt PostOptions) *request {
	return &request{
		endpoint: ep, kind: Post, id: id, tail: tail, post: true, body: body,
		key: opt.IdempotencyKey, before: opt.Before, refused: opt.Refused, bound: maxAnswer,
	}
}

func (c *Client) answer(ctx context.Context, r *request, payload string) (Answer, error) {
	p, _, err := c.call(ctx, r, payload)
	if err != nil {
		return Answer{}, err
	}
	if p.status == http.StatusNoContent {
		return Answer{Status: p.status}, nil
	}
	return Answer{Status: p.status, Body: c.withoutSecrets(p.body)}, nil
}

// withoutSecrets removes a key or token that the API echoes from JSON that leaves the client.
func (c *Client) withoutSecrets(body []byte) []byte {
	clean := c.opt.Tokens.Secrets().Bytes(body)
	if len(clean) == len(body) && (len(body) == 0 || &clean[0] == &body[0]) || json.Valid(clean) {
		return clean
	}
	return []byte(`{"success":true}`) // the secret was, for instance, a number; nothing else is worth keeping then
}

// LastLocation polls one device. The answer is read into buf, which may be nil and belongs to the call until
// it returns; the result's Buf replaces it.
func (c *Client) LastLocation(ctx context.Context, id string, buf []byte) (LastLocation, error) {
	r := &request{endpoint: epLastLocation, kind: Poll, id: id, tail: "/lastLocation", bound: maxLastLocation, buf: buf}
	p, env, err := c.call(ctx, r, "lastLocation")
	l := LastLocation{Buf: p.buf, At: p.at}
	if err != nil {
		return l, err
	}
	switch {
	case env.payload == nil, rawjson.IsNull(env.payload), emptyArray(env.payload):
		return l, nil // an empty array is an empty object in PHP
	case env.payload[0] != '{':
		return l, c.bad(r, &p, "lastLocation is no object", nil)
	}
	l.Raw = c.withoutSecrets(env.payload)
	return l, nil
}

func emptyArray(value []byte) bool {
	return len(value) >= 2 && value[0] == '[' && len(bytes.TrimSpace(value[1:len(value)-1])) == 0
}

// ParseTime reads an ISO 8601 date and time in any spelling that APIs are known to use; a missing offset means
// UTC.
func ParseTime(s string) (time.Time, error) {
	t, _, err := isotime.Parse(s)
	return t, err
}

// DeviceURL returns the address of a device at the API, in ASCII.
func (c *Client) DeviceURL(id string) string {
	u := c.prefix
	u.Path += "/api/devices/" + id
	u.RawPath += "/api/devices/" + escapeID(id)
	return u.String()
}

const maxID = 1024 // bytes; longer ones would not fit servers' limits on a request line once escaped

// CheckID refuses ids that no URL can carry unharmed.
func CheckID(id string) error {
	switch {
	case id == "":
		return &IDError{ID: id, Reason: "is empty"}
	case strings.Trim(id, ".") == "":
		// Servers and proxies resolve . and .. as parts of the path, also when they are escaped.
		return &IDError{ID: id, Reason: "is nothing but dots"}
	case len(id) > maxID:
		return &IDError{ID: id, Reason: "is longer than 1024 bytes"}
	case strings.IndexByte(id, 0) >= 0:
		return &IDError{ID: id, Reason: "contains a NUL byte"} // which servers refuse or cut at
	case !utf8.ValidString(id):
		return &IDError{ID: id, Reason: "is not UTF-8"} // and so cannot have come from JSON
	}
	return nil
}

// escapeID writes an id as one path segment. Unlike url.PathEscape it leaves only unreserved characters.
func escapeID(id string) string {
	plain := true
	for i := range len(id) {
		plain = plain && unreserved(id[i])
	}
	if plain {
		return id
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, 3*len(id))
	for i := range len(id) {
		if c := id[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// unreserved is RFC 3986, section 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}
