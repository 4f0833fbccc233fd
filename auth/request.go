package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer  = 64 << 10
	maxMessage = 200
)

// request asks for one token. The timeout begins when the budget has let the request through.
func (m *Manager) request(ctx context.Context) (*grant, *Error) {
	key, err := m.cfg.Key()
	if err != nil {
		return nil, &Error{Message: "API key not readable: " + m.clean(err.Error()), Err: err}
	}
	m.secrets.Add(key)
	req, err := m.newRequest(ctx, key)
	if err != nil {
		return nil, m.broken(err)
	}
	if m.cfg.Admit != nil {
		if err := m.cfg.Admit(req); err != nil {
			return nil, m.broken(err)
		}
	}
	if m.cfg.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		defer cancel()
		req = req.WithContext(limited)
	}
	c := clocks{sent: time.Now()}
	res, err := m.cfg.Transport.RoundTrip(req)
	if err != nil {
		return nil, m.broken(err)
	}
	defer func() { _ = res.Body.Close() }() // the body has been read; closing adds nothing
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	c.received = time.Now()
	if err != nil {
		e := m.broken(fmt.Errorf("read answer: %w", err))
		e.Status = res.StatusCode
		return nil, e
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		c.date = date
	}
	return m.judge(res, body, c)
}

func (m *Manager) newRequest(ctx context.Context, key string) (*http.Request, error) {
	body, err := json.Marshal(struct {
		UserName string `json:"userName"`
		Key      string `json:"apiKey"`
	}{m.cfg.UserName, key})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.cfg.Endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if m.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", m.cfg.UserAgent)
	}
	return req, nil
}

// broken is a failure that says nothing about the key.
func (m *Manager) broken(err error) *Error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // its text would repeat the URL
	}
	return &Error{Message: m.clean(err.Error()), Err: err}
}

const noEndpoint = "there is no token endpoint at this address, is PLASPY_BASE_URL the root of the API?"

// answer is the token endpoint's. Fields are raw so that one of a wrong type does not hide the others.
type answer struct {
	Success json.RawMessage `json:"success"`
	Token   json.RawMessage `json:"token"`
	Expires json.RawMessage `json:"expires"`
	Error   json.RawMessage `json:"error"`
}

func (m *Manager) judge(res *http.Response, body []byte, c clocks) (*grant, *Error) {
	status := res.StatusCode
	fail := func(refused bool, message string) *Error {
		after, _ := RetryAfter(res.Header, c.received)
		return &Error{Status: status, Refused: refused, Message: m.clean(message), RetryAfter: after}
	}
	if len(body) > maxAnswer {
		return nil, fail(false, "answer larger than 64 KiB")
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	var a answer
	invalid := json.Unmarshal(body, &a)
	said := text(a.Error)
	if said == "" {
		said = http.StatusText(status)
	}
	switch {
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden,
		status >= 200 && status <= 299 && invalid == nil && string(a.Success) == "false":
		return nil, fail(true, said)
	case status >= 300 && status <= 399:
		return nil, fail(false, "redirected to "+place(res)+", which is not followed; "+noEndpoint)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusGone:
		return nil, fail(false, said+"; "+noEndpoint)
	case status < 200 || status > 299:
		return nil, fail(false, said)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, fail(false, "empty answer")
	case invalid != nil && bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")):
		return nil, fail(false, "answer is HTML or XML, not JSON; "+noEndpoint)
	case invalid != nil:
		return nil, fail(false, "answer is not a JSON object: "+invalid.Error())
	}
	token := text(a.Token)
	switch {
	case len(a.Success) > 0 && string(a.Success) != "true" && string(a.Success) != "null":
		return nil, fail(false, "success is neither true nor false")
	case token == "":
		return nil, fail(false, "answer without a token")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fail(false, "token cannot be sent in a header")
	}
	m.secrets.Add(token)
	lasts, source := life(token, text(a.Expires), c)
	g := newGrant(token, c.sent, lasts, rand.Float64())
	g.source = source
	return g, nil
}

// text returns a JSON string's value, and nothing for any other value.
func text(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// place names the target of a redirect, without the path and query, which may hold anything.
func place(res *http.Response) string {
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || to.Host == "" {
		return "another place"
	}
	return to.Scheme + "://" + to.Host
}

// RetryAfter reads both forms of the header (RFC 9110, section 10.2.3), at most a day. A date counts from the
// answer's own Date, so that a difference between the clocks has no effect; without one, from received. A date in
// the past and a 0 mean at once; any other value, or a negative one, is as if the header were missing.
func RetryAfter(h http.Header, received time.Time) (after time.Duration, has bool) {
	const most = 24 * time.Hour
	v := strings.TrimSpace(h.Get("Retry-After"))
	if digits := strings.TrimLeft(v, "0123456789"); digits == "" && v != "" {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil || seconds > int64(most/time.Second) {
			return most, true // too many digits for the type
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		received = date
	}
	return min(max(0, at.Sub(received)), most), true
}

// clean makes a text from outside fit for a log line: no secrets, nothing unprintable, bounded.
func (m *Manager) clean(s string) string { return m.secrets.Text(s, maxMessage) }
