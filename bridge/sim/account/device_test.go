package account

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/sim/route"
)

func TestDeviceIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Device{}); n > 512 {
		t.Errorf("a device has %d bytes, want 512 at most", n)
	}
}

func TestRepliesAreBounded(t *testing.T) {
	var r replies
	for _, key := range []string{"a", "b", "c"} {
		r.add(key, []byte(key), 2)
	}
	if _, old := r.seen["a"]; old || len(r.seen) != 2 || string(r.seen["c"]) != "c" {
		t.Errorf("got %v, want b and c", r.seen)
	}
}

// Each kind of request is counted separately.
func TestUnderWay(t *testing.T) {
	var d Device
	for i, step := range []struct {
		stores bool
		want   int
	}{{false, 1}, {false, 2}, {true, 1}} {
		if got := d.Begin(step.stores); got != step.want {
			t.Errorf("request %d: got %d under way, want %d", i, got, step.want)
		}
	}
	d.End(false)
	if got := d.Begin(false); got != 2 {
		t.Errorf("got %d polls under way, want 2", got)
	}
}

// The quota of results starts again with each UTC day.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{Profile: fleet.Unchanged, Start: time.Now(), History: 4, DailyResults: 2}, []string{"a"})
		d := a.Device("a")
		for want := 2; want > 0; want-- {
			if !d.WithinQuota(time.Now()) {
				t.Fatalf("the quota is used up, %d results early", want)
			}
			d.AppendLocation(nil, Request{})
		}
		if d.WithinQuota(time.Now()) {
			t.Error("the quota is not used up after two results")
		}
		if !d.WithinQuota(time.Now().Add(24 * time.Hour)) {
			t.Error("the quota is used up on the next day too")
		}
	})
}

// The newest of a pinned and a posted location shows, and the vehicle's own
// afterwards.
func TestShownLocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{Profile: fleet.Unchanged, Start: time.Now(), History: 4}, []string{"a"})
		d := a.Device("a")
		now := time.Now().UTC()
		located := func(at time.Time) string {
			return `{"dateTime":"` + at.Format(time.RFC3339) + `","latitude":1,"longitude":2}`
		}
		post := func(at time.Time) string {
			t.Helper()
			body := `{"from":"` + at.Format(time.RFC3339) + `","to":"` + at.Format(time.RFC3339) + `","location":` + located(at) + `}`
			p, err := ParseSubmission([]byte(body), route.Locations)
			if err != nil {
				t.Fatal(err)
			}
			d.Accept(&p, Post{At: now}, func(entries []byte, _ int) []byte { return entries })
			return located(at)
		}
		want := func(step, raw string) {
			t.Helper()
			if got := string(d.AppendLocation(nil, Request{})); got != raw {
				t.Errorf("%s: got %s, want %s", step, got, raw)
			}
		}
		a.SetLocation("a", json.RawMessage(located(now)))
		want("pinned", located(now))
		post(now.Add(-time.Hour))
		want("an older post", located(now))
		want("a newer post", post(now.Add(time.Hour)))
		a.SetLocation("a", nil)
		want("pinned to nothing", "")
		a.ReleaseLocation("a")
		if got := string(d.AppendLocation(nil, Request{})); got == "" || got == located(now) {
			t.Errorf("released: got %q, want the vehicle's own", got)
		}
	})
}
