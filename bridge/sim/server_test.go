package sim_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/token"
)

func TestEndpoints(t *testing.T) {
	s := sim.New(sim.Options{Devices: 8, Profile: fleet.Unchanged, Record: 10})
	u := serve(t, s)

	var list struct {
		Success bool
		Error   *string
		Devices []account.DeviceInfo
	}
	u.get("/api/devices").want(200).into(&list)
	if !list.Success || list.Error != nil || len(list.Devices) != 8 {
		t.Fatalf("got %+v, want 8 devices", list)
	}
	if got := list.Devices[0]; got.ID != "device0001" || got.Name == "" || got.Min == "" || got.Tags["kind"] == "" || !got.Expires.After(time.Now()) {
		t.Errorf("got first device %+v", got)
	}
	var one struct{ Device account.DeviceInfo }
	u.get("/api/devices/device0003").want(200).into(&one)
	if diff := cmp.Diff(one.Device, list.Devices[2]); diff != "" {
		t.Errorf("the device's own entry differs from the list's (-got +want):\n%s", diff)
	}
	var grouped struct{ Groups []account.Group }
	u.get("/api/groups").want(200).into(&grouped)
	n := 0
	for _, g := range grouped.Groups {
		n += len(g.Devices)
	}
	if n != 8 {
		t.Errorf("got %d devices in groups, want 8: %+v", n, grouped)
	}
	raw := u.last("device0001")
	if got := s.Shown("device0001"); len(got) != 1 || got[0].Raw != raw || got[0].Fix != 1 {
		t.Errorf("got shown %+v, want one with %s", got, raw)
	}
}

func TestStatuses(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1})
	u := serve(t, s)
	for _, c := range []struct {
		name   string
		reply  reply
		status int
	}{
		{"unknown path", u.get("/api/nothing"), 404},
		{"outside the API", u.get("/"), 404},
		{"unknown device", u.get("/api/devices/none/lastLocation"), 404},
		{"empty device id", u.get("/api/devices//lastLocation"), 404},
		{"unknown action", u.get("/api/devices/device0001/firstLocation"), 404},
		{"too deep", u.get("/api/devices/device0001/lastLocation/x"), 404},
		{"wrong method", u.post("/api/devices", `{}`), 405},
		{"get of a post", u.get("/api/devices/device0001/locations"), 405},
		{"post without JSON", u.do(u.request("POST", "/api/devices/device0001/alerts", "")), 415},
		{"broken JSON", u.post("/api/devices/device0001/alerts", `{`), 400},
		{"control is off", u.get("/_sim/counts"), 404},
	} {
		c.reply.want(c.status)
		var got struct {
			Success *bool
			Error   string
		}
		c.reply.into(&got)
		if got.Success == nil || *got.Success || got.Error == "" {
			t.Errorf("%s: got body %s, want success false and an error", c.name, c.reply.body)
		}
	}
}

// An id may hold any characters: it is the same after a path.
func TestPathIDs(t *testing.T) {
	ids := []string{"a/b", "..", ".", "%2F", "%", "a?b#c", "dev 1", "日本", "🚚", "a//b", "../devices", "a;b=c", "x&y", "+", "lastLocation", "\x7f", "a\\b"}
	s := sim.New(sim.Options{IDs: ids, Profile: fleet.Unchanged, Record: 1})
	u := serve(t, s)
	local := inProcess(t, s)
	for _, id := range ids {
		for name, v := range map[string]*user{"tcp": u, "in process": local} {
			if got := v.last(id); got == "" {
				t.Errorf("%s: id %q shows nothing", name, id)
			}
			var one struct{ Device account.DeviceInfo }
			v.get(device(id, "")).want(200).into(&one)
			if one.Device.ID != id {
				t.Errorf("%s: got device %q, want %q", name, one.Device.ID, id)
			}
		}
		// As a careful client writes dots.
		dots := strings.ReplaceAll(device(id, ""), ".", "%2E")
		u.get(dots).want(200)
	}
}

func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, TokenLife: 3 * time.Second, RefusedStatus: 401})
		u := inProcess(t, s)
		var got struct {
			Success        bool
			Token, Expires string
			Error          *string
		}
		ask := func(body string) reply { return u.post("/api/Auth/Token", body) }
		ask(`{"userName":"sim","apiKey":"sim-key"}`).want(200).into(&got)
		if want := time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339); !got.Success || got.Expires != want || strings.Count(got.Token, ".") != 2 {
			t.Errorf("got %+v, want expires %s", got, want)
		}
		first := got.Token
		ask(`{"userName":"sim","apiKey":"sim-key"}`).into(&got)
		if got.Token == first {
			t.Error("the same token twice")
		}
		refused := ask(`{"userName":"sim","apiKey":"wrong"}`).want(401)
		if !contains(refused.body, `"success":false`) || !contains(refused.body, "Invalid API key or username.") {
			t.Errorf("got %s", refused.body)
		}

		u.get("/api/devices").want(200)
		time.Sleep(3 * time.Second)
		u.get("/api/devices").want(401) // expired
		u.login()
		s.RevokeTokens()
		u.get("/api/devices").want(401)
		u.token = "x.y.z"
		u.get("/api/devices").want(401)
		u.login()
		s.SetKey("new")
		u.get("/api/devices").want(401)
		ask(`{"userName":"sim","apiKey":"sim-key"}`).want(401)
		ask(`{"userName":"sim","apiKey":"new"}`).want(200)

		want := token.Counts{Requests: 8, Issued: 6, Refused: 2, Expired: 1, Revoked: 2, Unknown: 1}
		if diff := cmp.Diff(s.Counts().Tokens, want); diff != "" {
			t.Errorf("token counts (-got +want):\n%s", diff)
		}
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, RateLimit: 10})
		u := inProcess(t, s) // one request
		for range 9 {
			time.Sleep(time.Second)
			u.get("/api/devices").want(200)
		}
		// The window holds 10, the oldest of them 9 s old.
		got := u.get("/api/devices").want(429)
		if after := got.header.Get("Retry-After"); after != "51" {
			t.Errorf("got Retry-After %q, want 51", after)
		}
		time.Sleep(51*time.Second - time.Nanosecond)
		u.get("/api/devices").want(429)
		time.Sleep(time.Nanosecond)
		u.get("/api/devices").want(200)
		u.get("/api/devices").want(429)
		if got, want := s.Counts().MaxPerMinute, 13; got != want {
			// All but the login, which is a minute old at the end: 10 that
			// passed and 3 that did not.
			t.Errorf("got %d requests in the busiest minute, want %d", got, want)
		}
	})
}

func TestDailyResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 2, DailyResults: 3, Profile: fleet.Unchanged})
		time.Sleep(time.Minute)
		u := inProcess(t, s)
		for range 3 {
			u.last("device0001")
		}
		u.get(device("device0001", "/lastLocation")).want(429)
		u.last("device0002") // has its own
		time.Sleep(24 * time.Hour)
		u.login()
		u.last("device0001")
	})
}

func TestDailyUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in one day
		s := sim.New(sim.Options{Devices: 1})
		u := inProcess(t, s)
		var got struct{ APIUsage, APIDailyUsage int }
		for i := range 3 {
			u.get(device("device0001", "/lastLocation")).into(&got)
			if got.APIUsage != 1 || got.APIDailyUsage != i+1 {
				t.Errorf("got %+v, want usage 1 and %d", got, i+1)
			}
		}
	})
}

func TestDailyUsageLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, DailyUsage: 3, Skew: 12 * time.Hour, TokenLife: 100 * time.Hour})
		u := inProcess(t, s)
		poll := func() (status int, text string) {
			var got struct{ Error string }
			a := u.get(device("device0001", "/lastLocation"))
			a.into(&got)
			return a.status, got.Error
		}
		for i := range 5 {
			want := 200
			if i >= 3 {
				want = 429
			}
			if got, text := poll(); got != want {
				t.Errorf("request %d: status %d (%s), want %d", i, got, text, want)
			}
		}
		time.Sleep(12*time.Hour - time.Second)
		if got, _ := poll(); got != 429 {
			t.Errorf("status %d before the API's midnight, want 429", got)
		}
		time.Sleep(2 * time.Second)
		if got, text := poll(); got != 200 {
			t.Errorf("status %d (%s) after the API's midnight, want 200", got, text)
		}
	})
}

func TestSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := inProcess(t, sim.New(sim.Options{Skew: time.Hour, TokenLife: time.Minute}))
		got := u.post("/api/Auth/Token", `{"userName":"sim","apiKey":"sim-key"}`).want(200)
		date, err := http.ParseTime(got.header.Get("Date"))
		if err != nil || !date.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("got Date %s, %v", date, err)
		}
		var tok struct{ Expires time.Time }
		got.into(&tok)
		if want := time.Now().Add(time.Hour + time.Minute); !tok.Expires.Equal(want) {
			t.Errorf("got expires %s, want %s", tok.Expires, want)
		}
		u.get("/api/devices").want(200) // its own clock decides
	})
}

func TestConcurrencyIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 2})
		u := inProcess(t, s)
		s.Fault(fault.Rule{Kind: fault.Slow, Delay: time.Second, Endpoint: "lastLocation"})
		statuses := make(chan int)
		for range 3 {
			go func() { statuses <- u.get(device("device0001", "/lastLocation")).status }()
		}
		for range 3 {
			if got := <-statuses; got != 200 {
				t.Errorf("got status %d", got)
			}
		}
		u.last("device0002")
		got := s.Counts()
		if got.MaxPolls != 3 || got.MaxPosts != 0 {
			t.Errorf("got at most %d polls and %d posts at once, want 3 and 0", got.MaxPolls, got.MaxPosts)
		}
		if n := got.Answers["lastLocation"][200]; n != 4 {
			t.Errorf("got %d answers of lastLocation, want 4: %v", n, got.Answers)
		}
	})
}
