package plaspy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/bridge/plaspy"
)

func location(t *testing.T, id string) string {
	b, err := json.Marshal(map[string]string{"id": id})
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestLastLocation(t *testing.T) {
	for _, tc := range []struct {
		name, body, raw string
		want            string // of the error; empty: none
	}{
		{"full", `{"success":true,"error":null,"apiUsage":1,"apiDailyUsage":77,"lastLocation":{"a": 1.0}}`, `{"a": 1.0}`, ""},
		{"byte order mark", "\ufeff" + `{"success":true,"lastLocation":{}}`, `{}`, ""},
		{"never reported", `{"success":true}`, "", ""},
		{"null", `{"success":true,"lastLocation":null}`, "", ""},
		{"payload without success", `{"lastLocation":{}}`, `{}`, ""},
		{"null success", `{"success":null,"lastLocation":{}}`, `{}`, ""},
		{"nothing", `{}`, "", "neither success nor lastLocation"},
		{"success false", `{"success":false,"error":"No such\n device"}`, "", "No such device"},
		{"success false without a reason", `{"success":false,"error":null}`, "", "success is false"},
		{"success as text", `{"success":"true","lastLocation":{}}`, "", "neither true nor false"},
		{"location is an array", `{"success":true,"lastLocation":[1]}`, "", "no object"},
		{"empty array for null", `{"success":true,"lastLocation":[]}`, "", ""},
		{"empty array with a space", `{"success":true,"lastLocation":[ ]}`, "", ""},
		{"location is a string", `{"success":true,"lastLocation":"x"}`, "", "no object"},
		{"empty", "", "", "empty answer"},
		{"white space", " \r\n", "", "empty answer"},
		{"HTML", "<!DOCTYPE html><title>Login</title>", "", "HTML"},
		{"array", "[]", "", "not a JSON object"},
		{"truncated", `{"success":true,"lastLocation":{"a":1`, "", "not a JSON object"},
		{"two answers", `{"success":true}{"success":true}`, "", "not a JSON object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := reply(t, func(*http.Request) (*http.Response, error) { return answer(200, tc.body), nil })
			got, err := c.LastLocation(t.Context(), "dev", nil)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Fatalf("got error %v, want %q", err, tc.want)
			}
			if string(got.Raw) != tc.raw {
				t.Errorf("got %q, want %q", got.Raw, tc.raw)
			}
			if tc.name == "full" && got.At.IsZero() {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestBufferIsReused(t *testing.T) {
	c := reply(t, func(*http.Request) (*http.Response, error) {
		return answer(200, `{"success":true,"lastLocation":{"a":1}}`), nil
	})
	buf := make([]byte, 0, 1024)
	got, err := c.LastLocation(t.Context(), "dev", buf)
	if err != nil || &got.Buf[:1][0] != &buf[:1][0] {
		t.Errorf("got another buffer, %v", err)
	}
}

func TestDevices(t *testing.T) {
	body := `{"success":true,"devices":[{"id":"a","name":"Truck \u0037","expires":"2030-01-02T03:04:05Z","tags":{"x":1.0}},` +
		`{"name":"no id"}, 7, {"id":12}, {"id":"b","expires":"whenever","name":null}, {"id":""}, {"id":"a"}]}`
	c := reply(t, func(*http.Request) (*http.Response, error) { return answer(200, body), nil })
	got, skipped, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []plaspy.Device{
		{ID: "a", Name: "Truck 7", Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Raw: []byte(`{"id":"a","name":"Truck \u0037","expires":"2030-01-02T03:04:05Z","tags":{"x":1.0}}`)},
		{ID: "b", Raw: []byte(`{"id":"b","expires":"whenever","name":null}`)},
		{ID: "a", Raw: []byte(`{"id":"a"}`)},
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Error(d)
	}
	if len(skipped) != 4 || !strings.Contains(skipped[0].Error(), "entry 1") {
		t.Errorf("got %v, want four entries skipped", skipped)
	}
}

func TestLists(t *testing.T) {
	for _, tc := range []struct{ name, body, want string }{
		{"empty", `{"success":true,"devices":[],"groups":[]}`, ""},
		{"null", `{"success":true,"devices":null,"groups":null}`, ""},
		{"absent", `{"success":true}`, "answer has no"},
		{"object", `{"success":true,"devices":{},"groups":{}}`, "no array"},
		{"refused", `{"success":false,"error":"nope","devices":[],"groups":[]}`, "nope"},
		{"of another shape", `{"success":true,"devices":[{"deviceId":"a"},{"ID":"b"},null],"groups":[{"groupId":"a"},"b"]}`, "no entry can be read"},
		{"of ids that cannot be sent", `{"success":true,"devices":[{"id":".."}],"groups":[]}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := reply(t, func(*http.Request) (*http.Response, error) { return answer(200, tc.body), nil })
			devices, _, devicesErr := c.Devices(t.Context())
			groups, _, groupsErr := c.Groups(t.Context())
			for _, err := range []error{devicesErr, groupsErr} {
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
			}
			if len(devices)+len(groups) != 0 {
				t.Errorf("got %v %v", devices, groups)
			}
		})
	}
	c := reply(t, func(*http.Request) (*http.Response, error) {
		return answer(200, `{"success":true,"groups":[{"id":"g","name":"North","devices":["a",1,"b",null,{}]},{"name":"n","devices":null},{},{"id":"x","devices":1},{"id":7,"devices":["c"]}]}`), nil
	})
	groups, skipped, err := c.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(groups, []plaspy.Group{{ID: "g", Name: "North", Devices: []string{"a", "1", "b"}}, {Name: "n"}, {ID: "7", Devices: []string{"c"}}}); d != "" {
		t.Error(d)
	}
	if len(skipped) != 2 {
		t.Errorf("got %v, want two skipped", skipped)
	}
}

// TestDevicesOfALargeAccount reads a list of 300,000 devices, which is more than a
// query may answer.
func TestDevicesOfALargeAccount(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 80 MB")
	}
	const n = 300_000
	var b strings.Builder
	b.WriteString(`{"success":true,"devices":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"device%06d","name":"Truck %d","description":"%s","expires":"2030-01-01T00:00:00Z"}`, i, i, strings.Repeat("x", 180))
	}
	b.WriteString(`]}`)
	c := reply(t, func(*http.Request) (*http.Response, error) { return answer(200, b.String()), nil })
	devices, skipped, err := c.Devices(t.Context())
	if err != nil || len(skipped) != 0 || len(devices) != n {
		t.Fatalf("%d devices, %d skipped, %v", len(devices), len(skipped), err)
	}
	if _, err := c.DeviceList(t.Context()); !errors.Is(err, plaspy.ErrTooLarge) {
		t.Errorf("a query got %v", err)
	}
}

func TestPost(t *testing.T) {
	type sent struct{ Method, Path, Type, Key, Body string }
	var got []sent
	c := reply(t, func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.GetBody != nil || r.ContentLength != int64(len(body)) {
			t.Errorf("got length %d of %d, GetBody %v, %v", r.ContentLength, len(body), r.GetBody != nil, err)
		}
		got = append(got, sent{r.Method, r.URL.EscapedPath(), r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key"), string(body)})
		return answer(201, ` {"success":true,"locations":[]}`), nil
	})
	for _, post := range []func(context.Context, string, []byte, plaspy.PostOptions) (plaspy.Answer, error){c.Locations, c.Alerts} {
		a, err := post(t.Context(), "a/b", []byte(`{"from":1}`), plaspy.PostOptions{IdempotencyKey: "id\n1"})
		if err != nil || a.Status != 201 || string(a.Body) != ` {"success":true,"locations":[]}` {
			t.Errorf("got %+v %v", a, err)
		}
	}
	want := []sent{
		{"POST", "/api/devices/a%2Fb/locations", "application/json", "id%0A1", `{"from":1}`},
		{"POST", "/api/devices/a%2Fb/alerts", "application/json", "id%0A1", `{"from":1}`},
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Error(d)
	}
}

func TestErrorTellsWhatAndWhere(t *testing.T) {
	for _, tc := range []struct {
		name  string
		res   *http.Response
		want  plaspy.Error
		class plaspy.Class
	}{
		{"API's words", answer(400, `{"success":false,"error":"dateTime\tis required"}`), plaspy.Error{Status: 400, Message: "dateTime is required", Excerpt: `{"success":false,"error":"dateTime\tis required"}`}, plaspy.Reject},
		{"Retry-After in seconds", answer(429, "slow\ndown", "Retry-After", "7"), plaspy.Error{Status: 429, Message: "too many requests", Excerpt: "slow down", RetryAfter: 7 * time.Second, HasRetryAfter: true}, plaspy.Throttled},
		{"unavailable", answer(503, ""), plaspy.Error{Status: 503, Message: "service unavailable"}, plaspy.Retry},
		{"maintenance", answer(503, "", "Retry-After", "0"), plaspy.Error{Status: 503, Message: "service unavailable", HasRetryAfter: true}, plaspy.Throttled},
		{"redirect", answer(302, "", "Location", "https://login.example.org/?secret=1"), plaspy.Error{Status: 302, Message: "redirected to https://login.example.org, which is not followed"}, plaspy.Foreign},
		{"unknown status", answer(599, ""), plaspy.Error{Status: 599, Message: "unknown status"}, plaspy.Retry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := reply(t, func(*http.Request) (*http.Response, error) { return tc.res, nil })
			_, err := c.Locations(t.Context(), "dev", nil, plaspy.PostOptions{})
			e, ok := errors.AsType[*plaspy.Error](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			got := plaspy.Error{Status: e.Status, RetryAfter: e.RetryAfter, HasRetryAfter: e.HasRetryAfter, Message: e.Message, Excerpt: e.Excerpt}
			if got != tc.want || e.Endpoint != "locations" {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if class := plaspy.Classify(fmt.Errorf("post: %w", err)); class != tc.class {
				t.Errorf("got class %v, want %v", class, tc.class)
			}
		})
	}
}

// Before decides at the last moment, for a replay too, and a withheld request does not count as an answer of the API.
func TestBefore(t *testing.T) {
	var sent []string
	status := 401
	c := reply(t, func(r *http.Request) (*http.Response, error) {
		sent = append(sent, r.URL.Path)
		return answer(status, `{"success":true}`), nil
	})
	asked, no := 0, errors.New("not any more")
	before := func() error {
		if asked++; asked > 1 {
			return no
		}
		return nil
	}
	_, err := c.Locations(t.Context(), "a", []byte(`{}`), plaspy.PostOptions{Before: before})
	if !errors.Is(err, no) || asked != 2 || len(sent) != 1 {
		t.Errorf("the replay was not withheld: %v, asked %d times, sent %v", err, asked, sent)
	}
	if plaspy.IsOutage(err) {
		t.Error("counts as an outage")
	}
	if _, err := c.Alerts(t.Context(), "a", []byte(`{}`), plaspy.PostOptions{Before: before}); !errors.Is(err, no) || len(sent) != 1 {
		t.Errorf("not withheld: %v, sent %v", err, sent)
	}
	asked, status = 0, 200
	if _, err := c.Alerts(t.Context(), "a", []byte(`{}`), plaspy.PostOptions{Before: before}); err != nil || len(sent) != 2 {
		t.Errorf("withheld: %v, sent %v", err, sent)
	}
}

// While a call waits for another token, nothing is in flight, and its caller knows.
func TestRefusedTokenIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := 0
		var posts atomic.Int64
		c := newClient(t, "https://api.example.com", roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/Auth/Token" {
				if tokens++; tokens > 1 {
					return answer(401, `{"success":false}`), nil // the key was replaced
				}
				return tokenAnswer(), nil
			}
			posts.Add(1)
			return answer(401, `{"success":false}`), nil
		}))
		var inFlight atomic.Bool
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() {
			time.Sleep(time.Minute)
			if inFlight.Load() || posts.Load() != 1 {
				t.Errorf("in flight: %v, after %d posts", inFlight.Load(), posts.Load())
			}
		}()
		_, err := c.Locations(ctx, "dev", []byte(`{}`), plaspy.PostOptions{
			Before: func() error { inFlight.Store(true); return nil }, Refused: func() { inFlight.Store(false) },
		})
		if plaspy.Classify(err) != plaspy.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

func TestErrorsHoldNoSecret(t *testing.T) {
	c := reply(t, func(r *http.Request) (*http.Response, error) {
		return answer(400, `{"success":false,"error":"bad header `+r.Header.Get("Authorization")+`","key":"`+theKey+`"}`), nil
	})
	err := poll(t.Context(), c)
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	if strings.Contains(text, theKey) || strings.Contains(text, theToken) || !strings.Contains(text, "bad header Bearer") {
		t.Errorf("got %s", text)
	}
}

func TestRequestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	status := 200
	c := reply(t, func(*http.Request) (*http.Response, error) {
		if status == 0 {
			return nil, errors.New("refused")
		}
		return answer(status, `{"success":true,"apiDailyUsage":4711}`), nil
	}, func(o *plaspy.Options) { o.Registerer = reg })
	for _, status = range []int{200, 200, 500, 0} {
		_ = poll(t.Context(), c)
	}
	want := `# HELP plaspy_bridge_api_requests_total Requests to the Plaspy API, by endpoint (token, devices, device, groups, last_location, locations, alerts) and status code; code is error if there was no answer.
# TYPE plaspy_bridge_api_requests_total counter
plaspy_bridge_api_requests_total{code="200",endpoint="last_location"} 2
plaspy_bridge_api_requests_total{code="200",endpoint="token"} 1
plaspy_bridge_api_requests_total{code="500",endpoint="last_location"} 1
plaspy_bridge_api_requests_total{code="error",endpoint="last_location"} 1
# HELP plaspy_bridge_api_daily_usage The account's usage today, from the last answer with apiDailyUsage.
# TYPE plaspy_bridge_api_daily_usage gauge
plaspy_bridge_api_daily_usage 4711
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "plaspy_bridge_api_requests_total", "plaspy_bridge_api_daily_usage"); err != nil {
		t.Error(err)
	}
}
