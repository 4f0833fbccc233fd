package route_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"plaspy-bridge/bridge/sim/route"
)

func TestParse(t *testing.T) {
	for path, want := range map[string]struct {
		endpoint     route.Endpoint
		id           string
		name, method string
	}{
		"/api/Auth/Token":             {route.Token, "", "token", "POST"},
		"/api/devices":                {route.Devices, "", "devices", "GET"},
		"/api/groups":                 {route.Groups, "", "groups", "GET"},
		"/api/devices/a":              {route.Device, "a", "device", "GET"},
		"/api/devices/a/lastLocation": {route.LastLocation, "a", "lastLocation", "GET"},
		"/api/devices/a/locations":    {route.Locations, "a", "locations", "POST"},
		"/api/devices/a/alerts":       {route.Alerts, "a", "alerts", "POST"},
		"/api/devices/a%2Fb":          {route.Device, "a/b", "device", "GET"},
		"/api/devices/a/b":            {route.Unknown, "", "unknown", "GET"},
		"/api/devices//alerts":        {route.Unknown, "", "unknown", "GET"},
		"/api/auth/token":             {route.Unknown, "", "unknown", "GET"},
		"/devices":                    {route.Unknown, "", "unknown", "GET"},
	} {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatal(err)
		}
		e, id := route.Parse(u)
		if e != want.endpoint || id != want.id {
			t.Errorf("%s is %s of %q, want %s of %q", path, e, id, want.endpoint, want.id)
		}
		if e.String() != want.name || e.Method() != want.method {
			t.Errorf("%s is %s %s, want %s %s", path, e.Method(), e, want.method, want.name)
		}
	}
}

// Every id that is sent with all its bytes encoded, or as net/url encodes it,
// arrives; no other path names that device.
func FuzzRoute(f *testing.F) {
	for _, id := range []string{"device1", "a/b", "..", "%2F", "a?b#c", "🚚", "\xff", "\x00", "a//", "+", ""} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		var all strings.Builder
		for _, b := range []byte(id) {
			fmt.Fprintf(&all, "%%%02X", b)
		}
		for _, enc := range []string{all.String(), url.PathEscape(id)} {
			u, err := url.ParseRequestURI("/api/devices/" + enc + "/lastLocation")
			if err != nil {
				t.Fatalf("%q: %v", enc, err)
			}
			e, got := route.Parse(u)
			if id == "" {
				if e != route.Unknown {
					t.Fatalf("the empty id is %s", e)
				}
				continue
			}
			if e != route.LastLocation || got != id {
				t.Fatalf("%q is %s of %q", enc, e, got)
			}
		}
	})
}
