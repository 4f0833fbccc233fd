package plaspy_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

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
	}
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
