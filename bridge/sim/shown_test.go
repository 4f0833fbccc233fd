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
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fleet"
)

// The fixes shown, and the result of Changes for them, over a minute of seconds.
func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 3, Profile: fleet.Every(2 * time.Second), Record: 1000})
		u := inProcess(t, s)
		var want []string
		for range 60 {
			time.Sleep(time.Second)
			want = append(want, u.last("device0002"))
		}
		var got []string
		var seq uint64
		for _, sh := range s.Shown("device0002") {
			got = append(got, sh.Raw)
			if sh.Seq <= seq {
				t.Errorf("request %d after %d", sh.Seq, seq)
			}
			seq = sh.Seq
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("shown (-recorded +seen):\n%s", diff)
		}
		if n := len(s.Changes("device0002")); n != 30 && n != 31 {
			t.Errorf("got %d changes in 60 s of a fix every 2 s", n)
		}
	})
}

func TestRecordIsBounded(t *testing.T) {
	s := sim.New(sim.Options{Devices: 1, Record: 5})
	u := serve(t, s)
	for range 20 {
		u.last("device0001")
	}
	got := s.Shown("device0001")
	if len(got) != 5 || got[4].Seq != uint64(s.Counts().Requests) {
		t.Errorf("got %d answers, the last of request %d, want the newest 5", len(got), got[len(got)-1].Seq)
	}
}

// inactiveSeconds grows while nothing else changes.
func TestInactiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sim.New(sim.Options{Devices: 1, Profile: fleet.Unchanged, Record: 10})
		u := inProcess(t, s)
		strip := func(raw string) (n float64, rest map[string]any) {
			if err := json.Unmarshal([]byte(raw), &rest); err != nil {
				t.Fatal(err)
			}
			n = rest["inactiveSeconds"].(float64)
			delete(rest, "inactiveSeconds")
			return n, rest
		}
		n0, rest0 := strip(u.last("device0001"))
		time.Sleep(90 * time.Second)
		n1, rest1 := strip(u.last("device0001"))
		if n1-n0 != 90 {
			t.Errorf("inactiveSeconds went from %v to %v in 90 s", n0, n1)
		}
		if diff := cmp.Diff(rest0, rest1); diff != "" {
			t.Errorf("the rest changed:\n%s", diff)
		}
		if got := s.Changes("device0001"); len(got) != 1 {
			t.Errorf("got %d changes, want 1", len(got))
		}
	})
}

func TestScript(t *testing.T) {
	s := sim.New(sim.Options{Devices: 2, Profile: fleet.EverySecond, Record: 100})
	u := serve(t, s)
	const a = `{ "dateTime":"2026-01-02T03:04:05Z", "latitude":4.70, "longitude":-74.1e0, "x":"\u00e1" }`
	const b = `{"dateTime":"2026-01-02T03:04:00Z","latitude":1,"longitude":2}`
	for _, raw := range []string{a, a, b, a} {
		s.SetLocation("device0001", json.RawMessage(raw))
		if got := u.last("device0001"); got != raw {
			t.Errorf("got %s, want %s", got, raw)
		}
	}
	var got []string
	for _, sh := range s.Changes("device0001") {
		got = append(got, sh.Raw)
	}
	if diff := cmp.Diff(got, []string{a, b, a}); diff != "" {
		t.Errorf("changes (-got +want):\n%s", diff)
	}
	s.SetLocation("device0001", nil)
	if body := u.get(device("device0001", "/lastLocation")).want(200).body; contains(body, "lastLocation") {
		t.Errorf("got %s, want no lastLocation", body)
	}
	s.ReleaseLocation("device0001")
	if got := u.last("device0001"); !strings.Contains(got, "milleage") {
		t.Errorf("got %s, want the vehicle's own fix", got)
	}

	s.AddDevice("new")
	s.SetDevice("new", func(d *account.DeviceInfo) { d.Name = "Renamed" })
	s.SetDevice("odd", func(d *account.DeviceInfo) { d.Raw = json.RawMessage(`{"id":7}`) })
	s.RemoveDevice("device0002")
	list := u.get("/api/devices").want(200).body
	for _, want := range []string{`"Renamed"`, `{"id":7}`, `"device0001"`} {
		if !contains(list, want) {
			t.Errorf("no %s in the list %s", want, list)
		}
	}
	if contains(list, "device0002") {
		t.Errorf("the removed device is in the list %s", list)
	}
	u.get("/api/devices/device0002").want(404)
	s.SetGroups(nil)
	if body := u.get("/api/groups").body; !contains(body, `"groups":[]`) {
		t.Errorf("got %s, want no groups", body)
	}
}

// Two servers with one seed show the same fixes, also after different requests.
func TestDeterminism(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := sim.Options{Devices: 20, Seed: 42}
		one, two := inProcess(t, sim.New(o)), inProcess(t, sim.New(o))
		for i := range 200 {
			time.Sleep(7 * time.Second)
			if i%3 == 0 {
				one.last("device0007")
			}
			id := fmt.Sprintf("device%04d", i%20+1)
			if a, b := one.last(id), two.last(id); a != b {
				t.Fatalf("after %d s:\n%s\n%s", 7*i, a, b)
			}
		}
	})
}
