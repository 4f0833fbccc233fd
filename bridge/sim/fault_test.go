package sim_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

// Every kind of fault acts as its comment says, over TCP.
func TestFaultKinds(t *testing.T) {
	is := func(status int, more ...string) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			r.want(status)
			for _, s := range more {
				if !contains(r.body, s) {
					t.Errorf("got %q, want it to hold %q", clip(r.body), s)
				}
			}
		}
	}
	invalid := func(t *testing.T, r reply) {
		t.Helper()
		if r.want(200); json.Valid(r.body) || len(r.body) == 0 {
			t.Errorf("got %q, want broken JSON", r.body)
		}
	}
	broken := func(t *testing.T, r reply) {
		t.Helper()
		if r.err == nil {
			t.Errorf("got status %d and %q, want an error", r.status, clip(r.body))
		}
	}
	refused := func(t *testing.T, r reply) {
		t.Helper()
		if !errors.Is(r.err, syscall.ECONNRESET) {
			t.Errorf("got status %d, error %v, want a reset", r.status, r.err)
		}
	}
	header := func(status int, name, want string) func(*testing.T, reply) {
		return func(t *testing.T, r reply) {
			t.Helper()
			if got := r.want(status).header.Get(name); got != want {
				t.Errorf("got %s %q, want %q", name, got, want)
			}
		}
	}
	for _, c := range []struct {
		name  string
		fault fault.Rule
		check func(*testing.T, reply)
	}{
		{"status", fault.Rule{Kind: fault.Status}, is(500, `"success":false`)},
		{"status with body", fault.Rule{Kind: fault.Status, Status: 503, Body: "down"}, is(503, "down")},
		{"retry after seconds", fault.Rule{Kind: fault.Status, Status: 503, RetryAfter: 1500 * time.Millisecond}, header(503, "Retry-After", "2")},
		{"retry after text", fault.Rule{Kind: fault.Throttle, RetryText: "soon"}, header(429, "Retry-After", "soon")},
		{"unauthorized", fault.Rule{Kind: fault.Unauthorized}, is(401)},
		{"refuse", fault.Rule{Kind: fault.Refuse}, is(200, `"success":false`)},
		{"html", fault.Rule{Kind: fault.HTML}, is(200, "<html>")},
		{"wrong types", fault.Rule{Kind: fault.WrongTypes}, is(200, `"lastLocation":[1]`)},
		{"garbage", fault.Rule{Kind: fault.Garbage}, invalid},
		{"truncated", fault.Rule{Kind: fault.Truncated}, invalid},
		{"cut off", fault.Rule{Kind: fault.CutOff}, broken},
		{"not HTTP", fault.Rule{Kind: fault.NotHTTP}, broken},
		{"reset", fault.Rule{Kind: fault.Reset}, refused},
		{"reset unread", fault.Rule{Kind: fault.ResetUnread}, refused},
		{"redirect", fault.Rule{Kind: fault.Redirect, Target: "http://example.net/x"}, header(302, "Location", "http://example.net/x")},
		{"huge", fault.Rule{Kind: fault.Huge, Size: 300_000}, func(t *testing.T, r reply) {
			if r.want(200); len(r.body) != 300_000 || !json.Valid(r.body) {
				t.Errorf("got %d bytes, valid %v", len(r.body), json.Valid(r.body))
			}
		}},
		{"endless", fault.Rule{Kind: fault.Endless}, func(t *testing.T, r reply) {
			if len(r.body) != 1<<20 { // the limit of this client
				t.Errorf("got %d bytes", len(r.body))
			}
		}},
		{"gzip bomb", fault.Rule{Kind: fault.GzipBomb, Size: 50 << 20}, func(t *testing.T, r reply) {
			z, err := gzip.NewReader(strings.NewReader(string(r.body)))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, z); n < 50<<20 || err != nil || len(r.body) > 1<<19 {
				t.Errorf("%d bytes unpack to %d, %v", len(r.body), n, err)
			}
		}},
		{"no location", fault.Rule{Kind: fault.NoLocation}, func(t *testing.T, r reply) {
			if is(200, `"success":true`)(t, r); contains(r.body, "lastLocation") {
				t.Errorf("got %s", r.body)
			}
		}},
		{"null island", fault.Rule{Kind: fault.NullIsland}, is(200, `"latitude":0,"longitude":0,`)},
		{"out of range", fault.Rule{Kind: fault.OutOfRange}, is(200, `"latitude":91.5,`)},
		{"bad time", fault.Rule{Kind: fault.BadTime}, is(200, `"dateTime":"yesterday"`)},
		{"bad UTF-8", fault.Rule{Kind: fault.BadUTF8}, func(t *testing.T, r reply) {
			if r.want(200); utf8.Valid(r.body) || !json.Valid([]byte(strings.ToValidUTF8(string(r.body), "?"))) {
				t.Errorf("got %q", r.body)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := sim.New(sim.Options{Devices: 2, Profile: fleet.Unchanged})
			u := serve(t, s)
			remove := s.Fault(c.fault)
			r := u.get(device("device0001", "/lastLocation"))
			r.t = t
			c.check(t, r)
			remove()
			u.last("device0001")
		})
	}
}

func TestEmptyFault(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	u := serve(t, s)
	s.Fault(fault.Rule{Kind: fault.Empty})
	if r := u.get("/api/devices").want(200); len(r.body) != 0 {
		t.Errorf("got %q", r.body)
	}
}

func TestRetryDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{})
		u := inProcess(t, s)
		s.Fault(fault.Rule{Kind: fault.Throttle, RetryAfter: 90 * time.Second, RetryDate: true})
		at, err := http.ParseTime(u.get("/api/devices").want(429).header.Get("Retry-After"))
		if err != nil || !at.Equal(time.Now().Add(90*time.Second)) {
			t.Errorf("got %s, %v", at, err)
		}
	})
}

func TestListFaults(t *testing.T) {
	s := sim.New(sim.Options{Devices: 3})
	u := serve(t, s)
	ids := func() (ids []string, expired int) {
		t.Helper()
		var got struct{ Devices []account.DeviceInfo }
		u.get("/api/devices").want(200).into(&got)
		for _, d := range got.Devices {
			ids = append(ids, d.ID)
			if d.Expires.Before(time.Now()) {
				expired++
			}
		}
		return ids, expired
	}
	remove := s.Fault(fault.Rule{Kind: fault.Duplicate, Device: "*2"})
	got, _ := ids()
	if diff := cmp.Diff(got, []string{"device0001", "device0002", "device0002", "device0003"}); diff != "" {
		t.Error(diff)
	}
	remove()
	remove = s.Fault(fault.Rule{Kind: fault.Expired, Device: "*3"})
	if _, expired := ids(); expired != 1 {
		t.Errorf("got %d expired devices, want 1", expired)
	}
	remove()
	s.Fault(fault.Rule{Kind: fault.EmptyList})
	if got, _ := ids(); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	if body := u.get("/api/groups").body; !contains(body, `"groups":[]`) {
		t.Errorf("got %s", body)
	}
}

// Hanging and slow answers end when the client leaves, everywhere.
func TestHang(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Hang, fault.HangBody} {
		for _, network := range []string{"tcp", "in process"} {
			t.Run(string(kind)+" "+network, func(t *testing.T) {
				s := sim.New(sim.Options{Devices: 1})
				u := inProcess(t, s)
				if network == "tcp" {
					u = serve(t, s)
				}
				s.Fault(fault.Rule{Kind: kind, Endpoint: "locations"})
				now := time.Now()
				post := func(within time.Duration) reply {
					ctx, cancel := context.WithTimeout(t.Context(), within)
					defer cancel()
					return u.do(u.request("POST", device("device0001", "/locations"), ranged(now, now, "")).WithContext(ctx))
				}
				r := post(50 * time.Millisecond)
				for within := time.Second; kind == fault.HangBody && r.status == 0 && within < time.Minute; within *= 4 {
					r = post(within) // half an answer takes a busy machine longer
				}
				if !errors.Is(r.err, context.DeadlineExceeded) {
					t.Errorf("got %v", r.err)
				}
				if got := r.status; kind == fault.HangBody && (got != 200 || len(r.body) == 0) {
					t.Errorf("got status %d and %q, want half an answer", got, r.body)
				}
			})
		}
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, Profile: fleet.Unchanged})
		u := inProcess(t, s)
		remove := s.Fault(fault.Rule{Kind: fault.Slow, Delay: 2 * time.Second})
		s.Fault(fault.Rule{Kind: fault.Slow, Delay: time.Second, Endpoint: "dev*"})
		s.Fault(fault.Rule{Kind: fault.Status, Status: 503, Endpoint: "groups"})
		took := func(path string, status int) time.Duration {
			t.Helper()
			t0 := time.Now()
			u.get(path).want(status)
			return time.Since(t0)
		}
		if got := took("/api/devices", 200); got != 3*time.Second {
			t.Errorf("the list took %s, want 3s", got)
		}
		if got := took("/api/groups", 503); got != 2*time.Second {
			t.Errorf("the groups took %s, want 2s", got)
		}
		remove()
		remove()
		s.ClearFaults()
		s.Fault(fault.Rule{Kind: fault.Slow, Tail: time.Second})
		var sum time.Duration
		for range 1000 {
			sum += took("/api/devices/device0001", 200)
		}
		if mean := sum / 1000; mean < 900*time.Millisecond || mean > 1100*time.Millisecond {
			t.Errorf("the mean delay was %s, want about 1s", mean)
		}
	})
}

// Which requests a fault is for.
func TestFaultScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{IDs: []string{"truck 1", "truck 2", "van/1"}})
		u := inProcess(t, s)
		status := func(id string) int { return u.get(device(id, "/lastLocation")).status }
		all := func() []int { return []int{status("truck 1"), status("truck 2"), status("van/1")} }
		now := time.Now()
		for _, c := range []struct {
			name  string
			fault fault.Rule
			wait  time.Duration
			want  []int
		}{
			{"everything", fault.Rule{}, 0, []int{500, 500, 500}},
			{"endpoint", fault.Rule{Endpoint: "lastLocation"}, 0, []int{500, 500, 500}},
			{"another endpoint", fault.Rule{Endpoint: "locations"}, 0, []int{200, 200, 200}},
			{"device", fault.Rule{Device: "truck 2"}, 0, []int{200, 500, 200}},
			{"glob", fault.Rule{Device: "truck*"}, 0, []int{500, 500, 200}},
			{"glob over a slash", fault.Rule{Device: "v*1"}, 0, []int{200, 200, 500}},
			{"question mark", fault.Rule{Device: "truck ?"}, 0, []int{500, 500, 200}},
			{"times", fault.Rule{Times: 2}, 0, []int{500, 500, 200}},
			{"not yet", fault.Rule{From: now.Add(10 * time.Second)}, 9 * time.Second, []int{200, 200, 200}},
			{"from now", fault.Rule{From: now.Add(10 * time.Second)}, time.Second, []int{500, 500, 500}},
			{"over", fault.Rule{Until: now.Add(10 * time.Second)}, 0, []int{200, 200, 200}},
		} {
			time.Sleep(c.wait)
			c.fault.Kind = fault.Status
			remove := s.Fault(c.fault)
			if diff := cmp.Diff(all(), c.want); diff != "" {
				t.Errorf("%s (-got +want):\n%s", c.name, diff)
			}
			remove()
		}
		s.Fault(fault.Rule{Kind: fault.Status, Device: "*"})
		u.get("/api/devices").want(200) // is about no device
	})
}

func TestProbability(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	u := inProcess(t, s)
	s.Fault(fault.Rule{Kind: fault.Status, Probability: 0.3})
	bad := 0
	for range 2000 {
		if u.get(device("device0001", "/lastLocation")).status == 500 {
			bad++
		}
	}
	if bad < 500 || bad > 700 {
		t.Errorf("%d of 2000 failed, want about 600", bad)
	}
}

// With Done the API accepts requests that their sender takes for lost.
func TestDone(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Status, fault.Reset, fault.Empty, fault.CutOff} {
		t.Run(string(kind), func(t *testing.T) {
			s := sim.New(sim.Options{Devices: 1, Record: 10})
			u := serve(t, s)
			at := time.Now().Add(time.Hour)
			post := func() reply {
				return u.post(device("device0001", "/locations"), ranged(at, at, `,"location":`+located(at, 1)))
			}
			s.Fault(fault.Rule{Kind: kind, Done: true, Times: 1})
			if r := post(); r.err == nil && r.status == 200 && json.Valid(r.body) {
				t.Errorf("the sender got %d %s", r.status, r.body)
			}
			got := s.Posts("device0001")
			if len(got) != 1 || got[0].Fault != kind {
				t.Fatalf("got posts %+v, want one with the fault", got)
			}
			post().want(200)
			if got := s.Posts("device0001"); len(got) != 2 || got[1].Fault != "" {
				t.Errorf("got posts %+v", got)
			}
		})
	}
}

// A distorted answer is recorded as such, and is no change.
func TestDistortedIsRecorded(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1, Record: 10, Profile: fleet.Unchanged})
	u := serve(t, s)
	u.last("device0001")
	s.Fault(fault.Rule{Kind: fault.OutOfRange, Times: 1})
	u.last("device0001")
	s.Fault(fault.Rule{Kind: fault.Truncated, Times: 1})
	u.get(device("device0001", "/lastLocation"))
	u.last("device0001")
	var got []fault.Kind
	for _, sh := range s.Shown("device0001") {
		got = append(got, sh.Fault)
	}
	if diff := cmp.Diff(got, []fault.Kind{"", fault.OutOfRange, ""}); diff != "" {
		t.Errorf("faults of what was shown (-got +want):\n%s", diff)
	}
	if n := len(s.Changes("device0001")); n != 1 {
		t.Errorf("got %d changes, want 1", n)
	}
}

// Over HTTP/2 a reset ends the stream and leaves the connection.
func TestHTTP2(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	u := &user{t: t, base: srv.URL, via: srv.Client().Transport}
	u.login()
	s.Fault(fault.Rule{Kind: fault.Reset, Times: 1})
	if r := u.get("/api/devices"); r.err == nil {
		t.Errorf("got status %d, want an error", r.status)
	}
	u.get("/api/devices").want(200)
}
