package plaspy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"

	"plaspy-bridge/bridge/plaspy"
)

// FuzzAnswer gives every method the same bytes: none may panic, an error is an *Error that is fit for a log,
// and what is returned without one is what the documentation promises.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		string(pollAnswer), `{"success":true}`, `{"lastLocation":null}`, `{"success":false,"error":"\u0000\ud800"}`, "\ufeff{}", `<html>`,
		`{"success":true,"devices":[{"id":"a"},{"id":1},[],null],"groups":[{"id":"g","devices":["a",{}]}]}`, `{"success":true,"devices":{}}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(500, []byte(seed))
	}
	var status int
	var body []byte
	c := reply(f, func(*http.Request) (*http.Response, error) {
		res := answer(status, "")
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
		return res, nil
	})
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		// 401 and 403 would be about tokens, 429 and 503 would fill the budget with pauses.
		status, body = 200, data
		if code%2 != 0 {
			status = 500
		}
		l, pollErr := c.LastLocation(t.Context(), "dev", nil)
		if pollErr == nil && l.Raw != nil && (l.Raw[0] != '{' || !json.Valid(l.Raw)) {
			t.Errorf("got location %q", l.Raw)
		}
		devices, _, devicesErr := c.Devices(t.Context())
		for _, d := range devices {
			if d.ID == "" || !json.Valid(d.Raw) {
				t.Errorf("got device %+v", d)
			}
		}
		_, _, groupsErr := c.Groups(t.Context())
		a, postErr := c.Locations(t.Context(), "dev", nil, plaspy.PostOptions{})
		if postErr == nil && !json.Valid(a.Body) {
			t.Errorf("got answer %q", a.Body)
		}
		for _, err := range []error{pollErr, devicesErr, groupsErr, postErr} {
			if err == nil {
				continue
			}
			e, ok := errors.AsType[*plaspy.Error](err)
			if !ok || e.Status != status || len(e.Message) > 1024 || len(e.Excerpt) > 1024 || bytes.ContainsAny([]byte(err.Error()), "\x00\n\r\x1b") {
				t.Errorf("got %v", err)
			}
		}
	})
}
