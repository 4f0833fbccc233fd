package front_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher/natstest/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ports loopback.Ports

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newAPI makes an API without doors that is closed at the end of the test.
func newAPI(t *testing.T) *front.API {
	t.Helper()
	a := front.New(sim.New(sim.Options{Devices: 2, Seed: 1, APIKey: "key", Record: 100}), &ports)
	t.Cleanup(a.Close)
	return a
}

// open opens a door of an API.
func open(t *testing.T, a *front.API, bridge, life int) *front.Door {
	t.Helper()
	d, err := a.Open(t.Context(), bridge, life)
	ok(t, err)
	return d
}

// caller sends requests through a door, with a token of its own.
type caller struct {
	url    string
	client *http.Client
	token  string
}

// newCaller gets a token through a door.
func newCaller(t *testing.T, d *front.Door, config *tls.Config) *caller {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	c := &caller{url: d.URL, client: &http.Client{Transport: transport}}
	resp, err := c.do(t.Context(), http.MethodPost, "/api/Auth/Token", `{"userName":"sim","apiKey":"key"}`)
	ok(t, err)
	var body struct{ Token string }
	ok(t, json.Unmarshal([]byte(resp.body), &body))
	if c.token = body.Token; resp.status != http.StatusOK || c.token == "" {
		t.Fatalf("got %+v for a token", resp)
	}
	return c
}

// answer is an answer with its body.
type answer struct {
	status int
	header http.Header
	body   string
}

func (c *caller) do(ctx context.Context, method, path, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// poll asks for a device.
func (c *caller) poll(ctx context.Context, id string) (answer, error) {
	return c.do(ctx, http.MethodGet, "/api/devices/"+id+"/lastLocation", "")
}

// polled is poll with an answer of this status.
func (c *caller) polled(t *testing.T, id string, status int) answer {
	t.Helper()
	a, err := c.poll(t.Context(), id)
	ok(t, err)
	if a.status != status {
		t.Fatalf("got %d for a poll, want %d: %s", a.status, status, a.body)
	}
	return a
}

// TestDoors checks that the API knows the bridge and the life of each request and answer.
func TestDoors(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.Sim.IDs()[0]
	first, second := newCaller(t, open(t, a, 0, 3), nil), newCaller(t, open(t, a, 1, 0), nil)
	first.polled(t, id, http.StatusOK)
	a.CountPolls()
	second.polled(t, id, http.StatusOK)
	second.polled(t, id, http.StatusOK)

	for i, want := range [][2]int{{0, 3}, {1, 0}, {1, 0}} {
		shown := a.Sim.Shown(id)
		if len(shown) != 3 {
			t.Fatalf("got %d answers, want 3", len(shown))
		}
		bridge, life, known := a.Holder(shown[i].Token)
		if got := [2]int{bridge, life}; !known || got != want {
			t.Errorf("answer %d went to bridge and life %v, %t, want %v", i, got, known, want)
		}
	}
	if _, _, known := a.Holder(99); known {
		t.Error("an unused token has a holder")
	}
	var requests []string
	for _, q := range a.Requests() {
		requests = append(requests, fmt.Sprint(q.Bridge, "/", q.Life))
	}
	if got, want := strings.Join(requests, " "), "0/3 1/0 0/3 1/0 1/0"; got != want {
		t.Errorf("got requests of %s, want %s", got, want)
	}
	if polls := a.Counted(); len(polls) != 1 || polls[0].N != 2 {
		t.Errorf("got polls %+v since CountPolls, want 2 of one device", polls)
	}
	third := open(t, a, 1, 1)
	if got := a.Door(1); got != third {
		t.Errorf("got the door of life %d, want the newest one", got.Life)
	}
	if doors := a.Doors(); len(doors) != 2 || a.Door(2) != nil {
		t.Errorf("got %d doors, want those of two bridges", len(doors))
	}
}

// TestThrottle throttles one bridge and not the other.
func TestThrottle(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.Sim.IDs()[0]
	d := open(t, a, 0, 0)
	one, other := newCaller(t, d, nil), newCaller(t, open(t, a, 1, 0), nil)
	over := d.Throttle(2, 7*time.Second)
	other.polled(t, id, http.StatusOK)
	if got := one.polled(t, id, http.StatusTooManyRequests).header.Get("Retry-After"); got != "7" {
		t.Errorf("got Retry-After %q, want 7", got)
	}
	select {
	case <-over:
		t.Error("it was over after one of two answers")
	default:
	}
	one.polled(t, id, http.StatusTooManyRequests)
	<-over
	one.polled(t, id, http.StatusOK)
}

// TestFront lets a gateway answer, and then the API again.
func TestFront(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.Sim.IDs()[0]
	c := newCaller(t, open(t, a, 0, 0), nil)
	a.Front(front.Page(http.StatusServiceUnavailable))
	if got := c.polled(t, id, http.StatusServiceUnavailable); !strings.HasPrefix(got.body, "<!DOCTYPE html>") {
		t.Errorf("got %q, want a page", got.body)
	}
	a.Front(nil)
	c.polled(t, id, http.StatusOK)
	if n := len(a.Requests()); n != 3 {
		t.Errorf("%d requests, want 3: those that the gateway answers count", n)
	}
}

// TestDown refuses connections and accepts them again at the same address.
func TestDown(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.Sim.IDs()[0]
	d := open(t, a, 0, 0)
	c := newCaller(t, d, nil)
	for range 2 {
		d.Down(t.Context())
		if got, err := c.poll(t.Context(), id); err == nil {
			t.Errorf("got %d while the door was down", got.status)
		}
		ok(t, d.Up(t.Context()))
		c.polled(t, id, http.StatusOK)
	}
}

// TestFreeze freezes connections over TLS: a request on an old one gets no answer, and one
// on a new connection does.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP%d", version), func(t *testing.T) {
			t.Parallel()
			a := newAPI(t)
			env, err := a.Secure(version, t.TempDir())
			ok(t, err)
			pem, err := os.ReadFile(strings.TrimPrefix(env[0], "SSL_CERT_FILE="))
			ok(t, err)
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				t.Fatal("the file has no certificate")
			}
			config := func() *tls.Config { return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} }
			id := a.Sim.IDs()[0]
			d := open(t, a, 0, 0)
			old := newCaller(t, d, config())
			old.polled(t, id, http.StatusOK)
			ok(t, a.Freeze(t.Context()))
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if got, err := old.poll(ctx, id); err == nil {
				t.Errorf("got %d on a frozen connection", got.status)
			}
			newCaller(t, d, config()).polled(t, id, http.StatusOK)
			if n := len(a.Sim.Shown(id)); n != 2 {
				t.Errorf("the API answered %d polls, want 2", n)
			}
		})
	}
}
