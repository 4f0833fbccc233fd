package plaspy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
)

// FuzzAnswer gives every method the same bytes: none may panic, an error is an *Error that is fit for a log,
// and a result without one is as the documentation promises.
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

// secretKey has characters that serializers escape; secretToken looks like a JWT.
const (
	secretKey   = "q1+w2=e3/r4+t5&y6"
	secretToken = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIiwic2VjcmV0IjoiYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
)

// FuzzNoSecretLeaves makes the API echo a secret, in any spelling and cut anywhere, and looks at everything that
// a client returns or logs.
func FuzzNoSecretLeaves(f *testing.F) {
	f.Add(200, `{"success":true,"lastLocation":{"a":"KEY"},"devices":[{"id":"TOKEN","name":"KEY"}],"groups":[{"id":"KEY"}]}`, "text/plain", 0, 0)
	f.Add(400, `{"success":false,"error":"account KEY is blocked"}`, "", 1, 0)
	f.Add(500, "<html><pre>\n                    Authorization: Bearer TOKEN", "", 0, 13)
	f.Add(302, "", "https://TOKEN/KEY", 2, 0)
	f.Add(429, "KEYTOKENKEY", "TOKEN", 3, 0)
	spell := []func(string) string{
		func(s string) string { return s },
		func(s string) string { return strings.NewReplacer("+", `\u002B`, "/", `\/`, "&", `\u0026`).Replace(s) },
		url.QueryEscape,
		func(s string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + s)) },
	}
	var status int
	var body, header string
	var log strings.Builder
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/Auth/Token" {
			return answer(200, `{"success":true,"token":"`+secretToken+`","expires":"2999-01-01T00:00:00Z"}`), nil
		}
		return answer(status, body, "Location", header, "Content-Encoding", ""), nil
	})
	u, err := url.Parse("https://api.example.com")
	if err != nil {
		f.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	o := plaspy.Options{BaseURL: u, Budget: plaspy.NewBudget(0, logger, nil), Log: logger, Transport: rt}
	cfg, err := plaspy.TokenConfig(o, "user", func() (string, error) { return secretKey, nil })
	if err != nil {
		f.Fatal(err)
	}
	o.Tokens = auth.New(cfg, logger, nil)
	c, err := plaspy.New(o)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, code int, text, where string, spelling, cut int) {
		status = 200 + max(code, -code)%400
		if status == 401 || status == 429 || status == 503 {
			status = 400 // these are about the token and the budget, and would wait
		}
		write := spell[max(spelling, -spelling)%len(spell)]
		secrets := strings.NewReplacer("KEY", write(secretKey), "TOKEN", write(secretToken))
		body, header = secrets.Replace(text), secrets.Replace(where)
		body = body[:len(body)-min(max(cut, 0), len(body))]
		var out strings.Builder
		show := func(v any, err error) {
			fmt.Fprintf(&out, "%v %+v %#v\n", v, v, v)
			if err != nil {
				fmt.Fprintf(&out, "%v %+v %#v\n", err, err, err)
			}
		}
		l, err := c.LastLocation(t.Context(), "dev", nil)
		show(string(l.Raw), err)
		devices, skipped, err := c.Devices(t.Context())
		for _, d := range devices {
			show(string(d.Raw)+d.Name+d.ID, nil)
		}
		show(skipped, err)
		groups, skipped, err := c.Groups(t.Context())
		show(groups, err)
		show(skipped, nil)
		a, err := c.Locations(t.Context(), "dev", nil, plaspy.PostOptions{})
		show(string(a.Body), err)
		if err == nil && len(a.Body) > 0 && !json.Valid(a.Body) {
			t.Errorf("got %q, which is not JSON any more", a.Body)
		}
		a, err = c.DeviceList(t.Context())
		show(string(a.Body), err)
		out.WriteString(log.String())
		for _, secret := range []string{secretKey, secretToken} {
			for i := 0; i+12 <= len(secret); i++ {
				if run := secret[i : i+12]; strings.Contains(out.String(), run) && !strings.Contains(text+where, run) {
					t.Fatalf("%q left: %s", run, out.String())
				}
			}
		}
	})
}
