package sim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
)

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func located(at time.Time, lat float64) string {
	return fmt.Sprintf(`{"dateTime":"%s","latitude":%.2f,"longitude":-74.10, "note":"\u00e1"}`, stamp(at), lat)
}

func ranged(from, to time.Time, more string) string {
	return fmt.Sprintf(`{"from":"%s","to":"%s"%s}`, stamp(from), stamp(to), more)
}

func TestPostLocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, Profile: fleet.Every(time.Minute), Record: 100})
		u := inProcess(t, s)
		time.Sleep(10*time.Minute + time.Second)
		own := u.last("device0001")
		now := time.Now()
		path := device("device0001", "/locations")
		submit := func(loc string, from, to time.Time) (list []json.RawMessage) {
			t.Helper()
			var got struct{ Locations []json.RawMessage }
			u.post(path, ranged(from, to, `,"location":`+loc)).want(200).into(&got)
			return got.Locations
		}
		old := located(now.Add(-time.Hour), 1)
		if got := submit(old, now.Add(-time.Hour), now.Add(-time.Hour)); len(got) != 1 || string(got[0]) != old {
			t.Errorf("got %s, want %s", got, old)
		}
		if got := u.last("device0001"); got != own {
			t.Errorf("an older location shows: %s", got)
		}
		newer := located(now, 2)
		submit(newer, now, now)
		if got := u.last("device0001"); got != newer {
			t.Errorf("got %s, want %s", got, newer)
		}
		time.Sleep(time.Minute)
		if got := u.last("device0001"); got == newer || !strings.Contains(got, "milleage") {
			t.Errorf("got %s, want the vehicle's next fix", got)
		}
		posts := s.Posts("device0001")
		if len(posts) != 2 || !strings.Contains(posts[1].Body, newer) || s.Counts().Accepted["device0001"] != 2 {
			t.Errorf("got posts %+v", posts)
		}
	})
}

// A burst is invisible to lastLocation, and whole in a range.
func TestRangeQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := sim.New(sim.Options{Devices: 1, Profile: fleet.Every(10 * time.Second)})
		u := inProcess(t, s)
		time.Sleep(5*time.Minute + 5*time.Second)
		posted := located(start.Add(2*time.Minute), 3)
		u.post(device("device0001", "/locations"), ranged(start, start, `,"location":`+posted)).want(200)

		var got struct {
			APIUsage  int
			Locations []struct {
				DateTime        time.Time
				Latitude        float64
				InactiveSeconds int
			}
		}
		u.post(device("device0001", "/locations"), ranged(start.Add(time.Minute), start.Add(3*time.Minute), "")).want(200).into(&got)
		if n := len(got.Locations); n != 13 || got.APIUsage != n {
			t.Fatalf("got %d locations and usage %d, want 12 or so and the posted one", n, got.APIUsage)
		}
		seen := false
		for i, l := range got.Locations {
			if i > 0 && l.DateTime.Before(got.Locations[i-1].DateTime) {
				t.Errorf("times go from %s to %s", got.Locations[i-1].DateTime, l.DateTime)
			}
			seen = seen || l.Latitude == 3
			if l.InactiveSeconds != 0 {
				t.Errorf("got inactiveSeconds %d in history", l.InactiveSeconds)
			}
		}
		if !seen {
			t.Error("the posted location is not among them")
		}
		// Future fixes are not returned.
		u.post(device("device0001", "/locations"), ranged(time.Now(), time.Now().Add(time.Hour), "")).into(&got)
		if len(got.Locations) != 0 {
			t.Errorf("got %d locations of the future", len(got.Locations))
		}
	})
}

func TestPostAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 40, Seed: 3, Record: 10, History: 10_000})
		u := inProcess(t, s)
		start := time.Now()
		time.Sleep(3 * time.Hour)
		u.login()
		type alert struct {
			DateTime      time.Time
			Text          string
			Notifications []string
			Alerts        []string
		}
		ask := func(id, body string) []alert {
			t.Helper()
			var got struct{ Alerts []alert }
			u.post(device(id, "/alerts"), body).want(200).into(&got)
			return got.Alerts
		}
		total, filtered := 0, 0
		for _, id := range s.IDs() {
			for _, a := range ask(id, ranged(start.Add(-6*time.Hour), start.Add(9*time.Hour), "")) {
				total++
				if a.Text == "" || len(a.Alerts) != 1 || a.DateTime.IsZero() {
					t.Fatalf("got %+v", a)
				}
			}
			for _, a := range ask(id, ranged(start.Add(-6*time.Hour), start.Add(9*time.Hour), `,"alertName":"SpeedLimit"`)) {
				filtered++
				if a.Alerts[0] != "SpeedLimit" {
					t.Fatalf("got %+v with the filter SpeedLimit", a)
				}
			}
		}
		if total < 20 || filtered == 0 || filtered >= total {
			t.Errorf("got %d alerts of 40 devices in 3 hours, %d of them SpeedLimit", total, filtered)
		}
		// For an instant and with a name, the alert is raised.
		at := start.Add(100 * time.Hour)
		if got := ask("device0001", ranged(at, at, `,"alertName":"High Speed"`)); len(got) != 1 || got[0].Alerts[0] != "High Speed" || !got[0].DateTime.Equal(at) {
			t.Errorf("got %+v, want the posted alert", got)
		}
		if got := ask("device0001", ranged(at.Add(-time.Second), at.Add(time.Second), "")); len(got) != 1 {
			t.Errorf("got %+v later, want the posted alert", got)
		}
	})
}

func TestPostValidation(t *testing.T) {
	u := serve(t, sim.New(sim.Options{Devices: 1}))
	now := time.Now()
	for _, c := range []struct{ name, body, want string }{
		{"no JSON", `{"from":`, "not a JSON object"},
		{"an array", `[]`, "wrong type"},
		{"no from", `{"to":"2026-01-02T03:04:05Z"}`, "from"},
		{"bad to", `{"from":"2026-01-02T03:04:05Z","to":"later"}`, "to field"},
		{"from a number", `{"from":1,"to":"2026-01-02T03:04:05Z"}`, "from"},
		{"backwards", ranged(now, now.Add(-time.Second), ""), "before"},
		{"location an array", ranged(now, now, `,"location":[]`), "location"},
		{"no dateTime", ranged(now, now, `,"location":{"latitude":1,"longitude":2}`), "dateTime"},
		{"no latitude", ranged(now, now, `,"location":{"dateTime":"2026-01-02T03:04:05Z","longitude":2}`), "latitude"},
		{"latitude out of range", ranged(now, now, `,"location":{"dateTime":"2026-01-02T03:04:05Z","latitude":90.1,"longitude":2}`), "latitude"},
		{"longitude a text", ranged(now, now, `,"location":{"dateTime":"2026-01-02T03:04:05Z","latitude":1,"longitude":"2"}`), "type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := u.post(device("device0001", "/locations"), c.body).want(400)
			if !contains(got.body, c.want) {
				t.Errorf("got %s, want the error to name %q", got.body, c.want)
			}
		})
	}
	for _, at := range []string{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05-05:00", "2026-01-02T03:04:05+0000", "2026-01-02T03:04:05.5", "2026-01-02T03:04", "2026-01-02"} {
		u.post(device("device0001", "/locations"), fmt.Sprintf(`{"from":%q,"to":%q}`, at, at)).want(200)
	}
	huge := ranged(now, now, `,"location":{"x":"`+strings.Repeat("y", 1<<20)+`"}`)
	u.post(device("device0001", "/locations"), huge).want(413)
}

func TestIdempotencyKey(t *testing.T) {
	for _, honoured := range []bool{false, true} {
		t.Run(fmt.Sprint(honoured), func(t *testing.T) {
			s := sim.New(sim.Options{Devices: 1, Idempotent: honoured, Record: 10, Profile: fleet.Unchanged})
			u := serve(t, s)
			at := time.Now().Add(time.Minute)
			var bodies []string
			for range 2 {
				req := u.request("POST", device("device0001", "/locations"), ranged(at, at, `,"location":`+located(at, 1)))
				req.Header.Set("Idempotency-Key", "k1")
				var got struct{ Locations []json.RawMessage }
				r := u.do(req).want(200)
				r.into(&got)
				bodies = append(bodies, fmt.Sprint(len(got.Locations)))
			}
			posts := s.Posts("device0001")
			if len(posts) != 2 || posts[0].Key != "k1" || posts[0].Repeated || posts[1].Repeated != honoured {
				t.Errorf("got posts %+v", posts)
			}
			want := []string{"1", "2"}
			if honoured {
				want = []string{"1", "1"}
			}
			if diff := cmp.Diff(bodies, want); diff != "" {
				t.Errorf("locations in the answers (-got +want):\n%s", diff)
			}
		})
	}
}
