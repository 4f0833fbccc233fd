package sim_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"plaspy-bridge/bridge/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// user is a client of the simulated API.
type user struct {
	t     testing.TB
	base  string
	via   http.RoundTripper
	token string
}

// serve starts the server on TCP and logs a user in.
func serve(t testing.TB, s *sim.Server) *user {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	u := &user{t: t, base: srv.URL, via: tr}
	u.login()
	return u
}

// inProcess is a user without a network, for bubbles.
func inProcess(t testing.TB, s *sim.Server) *user {
	t.Helper()
	u := &user{t: t, base: "http://sim", via: s.Transport()}
	u.login()
	return u
}

func (u *user) login() {
	u.t.Helper()
	var got struct{ Token string }
	u.post("/api/Auth/Token", `{"userName":"sim","apiKey":"sim-key"}`).into(&got)
	if got.Token == "" {
		u.t.Fatal("no token")
	}
	u.token = got.Token
}

// reply is an answer that was read to its end.
type reply struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
	err    error // of the request, or of reading the body
}

func (r reply) into(v any) {
	r.t.Helper()
	if r.err != nil {
		r.t.Fatal(r.err)
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		r.t.Fatalf("%v in %q", err, r.body)
	}
}

func (r reply) want(status int) reply {
	r.t.Helper()
	if r.err != nil || r.status != status {
		r.t.Fatalf("got status %d, error %v, body %.200q, want status %d", r.status, r.err, r.body, status)
	}
	return r
}

func (u *user) do(req *http.Request) reply {
	u.t.Helper()
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	resp, err := u.via.RoundTrip(req)
	if err != nil {
		return reply{t: u.t, err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return reply{u.t, resp.StatusCode, resp.Header, body, err}
}

func (u *user) request(method, path, body string) *http.Request {
	u.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.base+path, r)
	if err != nil {
		u.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func (u *user) get(path string) reply {
	u.t.Helper()
	return u.do(u.request(http.MethodGet, path, ""))
}

func (u *user) post(path, body string) reply {
	u.t.Helper()
	return u.do(u.request(http.MethodPost, path, body))
}

func device(id, action string) string {
	// PathEscape leaves dots alone, as a careless client does.
	return "/api/devices/" + url.PathEscape(id) + action
}

// last is the answer of lastLocation, byte for byte.
func (u *user) last(id string) string {
	u.t.Helper()
	var got struct{ LastLocation json.RawMessage }
	u.get(device(id, "/lastLocation")).want(200).into(&got)
	return string(got.LastLocation)
}

// clip shortens text that is too long to print.
func clip(b []byte) []byte { return b[:min(len(b), 200)] }

func contains(b []byte, s string) bool { return bytes.Contains(b, []byte(s)) }
