package plaspy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/bridge/plaspy"
)

func TestIDsReachTheServer(t *testing.T) {
	ids := []string{
		"device123", "dev 1", "a/b", "../..", ".a", "%2F", "%", "a?b#c", "a;b=c", "a+b", "a&b", "é😀", "a\\b", "a:b@c",
		"\t\n\r", "\x7f", `"`, "-_.~", strings.Repeat("x", 1024),
	}
	for _, prefix := range []string{"", "/plaspy/v%201", "/"} {
		var got []string
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.RequestURI)
			segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), strings.TrimRight(prefix, "/")), "/")
			if len(segments) != 5 || segments[1] != "api" || segments[2] != "devices" || segments[4] != "lastLocation" {
				t.Errorf("got path %q", r.URL.EscapedPath())
				return
			}
			id := decode(t, segments[3])
			_, _ = fmt.Fprintf(w, `{"success":true,"lastLocation":%s}`, location(t, id))
		})
		c := newClient(t, s.URL+prefix, nil)
		for _, id := range ids {
			l, err := c.LastLocation(t.Context(), id, nil)
			if err != nil {
				t.Errorf("%q: %v", id, err)
				continue
			}
			if want := location(t, id); string(l.Raw) != want {
				t.Errorf("got %s, want %s", l.Raw, want)
			}
		}
		if len(got) != len(ids) {
			t.Errorf("got %d requests, want %d", len(got), len(ids))
		}
		c.Close()
	}
}

func location(t *testing.T, id string) string {
	b, err := json.Marshal(map[string]string{"id": id})
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func decode(t *testing.T, segment string) string {
	var b []byte
	for i := 0; i < len(segment); i++ {
		if segment[i] != '%' {
			b = append(b, segment[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(segment[i+1:i+3], "%02X", &c); err != nil {
			t.Error(err)
		}
		b = append(b, c)
		i += 2
	}
	return string(b)
}

// A ServeMux redirects paths with dot segments.
func TestIDsPassAMux(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/devices/{id}/lastLocation", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"success":true,"lastLocation":{"id":%q}}`, r.PathValue("id"))
	})
	s := serve(t, mux.ServeHTTP)
	c := newClient(t, s.URL, nil)
	for _, id := range []string{"a/b", "%2F", "..a"} {
		if l, err := c.LastLocation(t.Context(), id, nil); err != nil || string(l.Raw) != fmt.Sprintf(`{"id":%q}`, id) {
			t.Errorf("%q: got %s, %v", id, l.Raw, err)
		}
	}
}

func TestIDsRefused(t *testing.T) {
	c := reply(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("sent all the same") })
	for _, tc := range []struct{ name, id string }{
		{"empty", ""}, {"NUL", "a\x00b"}, {"no UTF-8", "a\xffb"}, {"too long", strings.Repeat("x", 1025)},
		{"a dot", "."}, {"two dots", ".."}, {"three dots", "..."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, pollErr := c.LastLocation(t.Context(), tc.id, nil)
			_, deviceErr := c.Device(t.Context(), tc.id)
			_, postErr := c.Locations(t.Context(), tc.id, nil, plaspy.PostOptions{})
			for _, err := range []error{pollErr, deviceErr, postErr} {
				if e, ok := errors.AsType[*plaspy.IDError](err); !ok || e.ID != tc.id || plaspy.Classify(err) != plaspy.Reject {
					t.Errorf("got %v", err)
				}
			}
		})
	}
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
		{"array", "[]", "", "no JSON object"},
		{"truncated", `{"success":true,"lastLocation":{"a":1`, "", "no JSON object"},
		{"two answers", `{"success":true}{"success":true}`, "", "no JSON object"},
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
			if tc.name == "full" && (got.APIUsage != 1 || got.DailyUsage != 77 || got.At.IsZero()) {
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

func TestBounds(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"success":true,"lastLocation":{"x":"`))
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for range 200 << 20 / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, tc := range []struct {
		name, want string
		h          http.HandlerFunc
	}{
		{"endless stream", "larger than 1048576 bytes", endless},
		{"stated length", "larger than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "209715200")
			endless(w, r)
		}},
		{"gzip bomb", "larger than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			endless(zipped{w, z}, r)
		}},
		{"truncated", "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"success":true`)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, tc.h)
			c := newClient(t, s.URL, nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.LastLocation(t.Context(), "dev", nil)
			runtime.ReadMemStats(&after)
			e, ok := errors.AsType[*plaspy.Error](err)
			if !ok || !strings.Contains(e.Error(), tc.want) || len(e.Excerpt) > 1024 {
				t.Fatalf("got %.300v, want %q", err, tc.want)
			}
			// Growing a buffer to a MiB allocates a few in all; the server's side is in the sum too.
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 12 {
				t.Errorf("%d MiB were allocated", used)
			}
		})
	}
}

// zipped writes an answer through a compressor.
type zipped struct {
	http.ResponseWriter
	z io.Writer
}

func (z zipped) Write(p []byte) (int, error) { return z.z.Write(p) }

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

func TestTimeout(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    func(r *http.Request) (*http.Response, error)
	}{
		{"no answer", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}},
		{"no body", func(r *http.Request) (*http.Response, error) {
			res := answer(200, "")
			res.ContentLength = -1
			res.Body = io.NopCloser(bodyFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, context.Cause(r.Context())
			}))
			return res, nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := reply(t, tc.f)
				start := time.Now()
				err := poll(t.Context(), c)
				e, ok := errors.AsType[*plaspy.Error](err)
				if !ok || !e.Timeout() || plaspy.Classify(err) != plaspy.Retry || !plaspy.IsOutage(err) || time.Since(start) != 10*time.Second {
					t.Errorf("got %v (%v) after %v", err, plaspy.Classify(err), time.Since(start))
				}
				for _, stop := range []func() (context.Context, context.CancelFunc){
					func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) },
					func() (context.Context, context.CancelFunc) {
						return context.WithTimeoutCause(t.Context(), time.Second, errors.New("closing"))
					},
				} {
					ctx, cancel := stop()
					err = poll(ctx, c)
					cancel()
					if plaspy.Classify(err) != plaspy.Canceled || plaspy.IsOutage(err) {
						t.Errorf("got %v (%v), want the caller's end", err, plaspy.Classify(err))
					}
				}
			})
		})
	}
}

type bodyFunc func([]byte) (int, error)

func (f bodyFunc) Read(p []byte) (int, error) { return f(p) }

// The limit is for a request, not for the wait for a token in the middle of a replay.
func TestTimeoutPausesForAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, polls := 0, 0
		c := newClient(t, "https://api.example.com", roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/Auth/Token" {
				if tokens++; tokens == 2 {
					return answer(503, "", "Retry-After", "60"), nil
				}
				return tokenAnswer(), nil
			}
			if polls++; polls == 2 {
				return answer(401, `{"success":false}`), nil
			}
			return answer(200, `{"success":true}`), nil
		}))
		for range 2 {
			if err := poll(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		if tokens != 3 || polls != 3 {
			t.Errorf("got %d token requests and %d polls, want 3 and 3", tokens, polls)
		}
	})
}

func TestConnectionsAreReused(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(withToken(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("got %s, want HTTP/2", r.Proto)
		}
		_, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`)
	}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	c := newClient(t, s.URL, nil, func(o *plaspy.Options) {
		o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
		o.Transport = plaspy.NewTransport(*o)
	})
	defer c.Close()
	for range 50 {
		if err := poll(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

func TestIdleConnectionsForAllWorkers(t *testing.T) {
	const workers = 20
	var conns atomic.Int64
	gate := make(chan struct{})
	var arrived sync.WaitGroup
	s := httptest.NewUnstartedServer(withToken(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		<-gate
		_, _ = io.WriteString(w, `{"success":true,"lastLocation":{}}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := newClient(t, s.URL, nil, func(o *plaspy.Options) {
		o.MaxConns = workers
		o.Transport = plaspy.NewTransport(*o)
	})
	defer c.Close()
	for range 3 {
		arrived.Add(workers)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				if err := poll(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		}
		arrived.Wait()
		for range workers {
			gate <- struct{}{}
		}
		wg.Wait()
	}
	if got := conns.Load(); got > workers+1 {
		t.Errorf("got %d connections for %d workers", got, workers)
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
	want := `# HELP plaspy_bridge_api_requests_total Requests to the Plaspy API, by endpoint and status code; code is error if there was no answer.
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

func TestUninvitedGzip(t *testing.T) {
	for _, tc := range []struct{ name, encoding, want string }{
		{"gzip", "gzip", ""}, {"old name", "X-GZIP", ""}, {"another encoding", "br", "encoded (br)"}, {"no gzip at all", "gzip", "gzip: invalid header"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", tc.encoding)
				z := gzip.NewWriter(w)
				defer z.Close()
				switch {
				case strings.HasSuffix(r.URL.Path, "/Token"):
					w.Header().Set("Content-Encoding", "gzip")
					res := tokenAnswer()
					_, _ = io.Copy(z, res.Body)
				case tc.name == "no gzip at all":
					_, _ = io.WriteString(w, `{"success":true}`)
				default:
					_, _ = io.WriteString(z, `{"success":true,"lastLocation":{"a":1}}`)
				}
			}))
			defer s.Close()
			c := newClient(t, s.URL, nil)
			got, err := c.LastLocation(t.Context(), "dev", nil)
			if tc.want == "" && (err != nil || string(got.Raw) != `{"a":1}`) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %s, %v, want %q", got.Raw, err, tc.want)
			}
		})
	}
}

// Queries about a fleet that no NATS message can carry cost bounded memory, however many come at once.
func TestListQueriesInBoundedMemory(t *testing.T) {
	const size = 64 << 20
	var most, now atomic.Int64
	c := reply(t, func(r *http.Request) (*http.Response, error) {
		most.Store(max(most.Load(), now.Add(1)))
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		res := answer(200, "")
		res.ContentLength = -1
		left := size
		res.Body = io.NopCloser(bodyFunc(func(p []byte) (int, error) {
			if left <= 0 {
				return 0, io.EOF
			}
			left -= len(p)
			return len(p), nil
		}))
		return res, nil
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := c.DeviceList(t.Context())
			now.Add(-1)
			if !errors.Is(err, plaspy.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	if got := most.Load(); got > 5 {
		t.Errorf("%d answers were read at once", got)
	}
	if used := (int64(after.HeapSys) - int64(before.HeapSys)) >> 20; used > 256 {
		t.Errorf("the heap grew by %d MiB", used)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.DeviceList(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
