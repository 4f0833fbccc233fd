package inspect

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"plaspy-bridge/bridge/config"
)

// TestLocalWhy: the answer of the local bridge suffices only if it polls the device.
func TestLocalWhy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body      string
		some, all bool // there is an answer, and no other replica need be asked
	}{
		{`{"deviceId":"dev 1","reason":"longest","decisions":[]}`, true, true},
		{`{"deviceId":"dev 1","reason":"paused","decisions":[]}`, true, true},
		{`{"deviceId":"dev 1","reason":"elsewhere","decisions":[]}`, true, false},
		{`{"deviceId":"dev 1","reason":"unlisted","decisions":[]}`, true, false},
		{`{"program":"another one"}`, false, false},
		{`<html>`, false, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/view/why" || r.URL.Query().Get("device") != "dev 1" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(test.body))
		}))
		cfg := config.Config{HTTPAddr: strings.TrimPrefix(server.URL, "http://")}
		answer, polls := localWhy(t.Context(), cfg, "dev 1")
		if (answer != nil) != test.some || polls != test.all {
			t.Errorf("of %s: %q, %v", test.body, answer, polls)
		}
		server.Close()
	}
}
