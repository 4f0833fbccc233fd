package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// account is the API as a service sees it.
type account interface {
	Devices
	History
}

// script answers as its fields say, and records the requests.
type script struct {
	err   error
	block chan struct{} // nil: answer at once
	asked chan string
}

func (s *script) say(ctx context.Context, format string, args ...any) (plaspy.Answer, error) {
	question := fmt.Sprintf(format, args...)
	if s.asked != nil {
		s.asked <- question
	}
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return plaspy.Answer{}, &plaspy.Error{Endpoint: "x", Message: "no answer", Err: context.Cause(ctx)}
		}
	}
	return plaspy.Answer{Status: 200, Body: []byte(question)}, s.err
}

func (s *script) DeviceList(ctx context.Context) (plaspy.Answer, error) { return s.say(ctx, "devices") }
func (s *script) Device(ctx context.Context, id string) (plaspy.Answer, error) {
	return s.say(ctx, "device %s", id)
}
func (s *script) LastLocation(ctx context.Context, id string, _ []byte) (plaspy.LastLocation, error) {
	a, err := s.say(ctx, "last %s", id)
	return plaspy.LastLocation{Buf: a.Body}, err
}
func (s *script) Locations(ctx context.Context, id string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return s.say(ctx, "locations %s %s", id, body)
}
func (s *script) Alerts(ctx context.Context, id string, body []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	return s.say(ctx, "alerts %s %s", id, body)
}

// serve runs a service on a server of its own.
func serve(t *testing.T, api account, set ...func(*Options)) *nats.Conn {
	t.Helper()
	srv := natstest.Start(t)
	nc := srv.Client(t)
	o := Options{
		Conn: nc, Subjects: "plaspy", Devices: api, History: api, Log: slog.New(slog.DiscardHandler), Version: "1.2.3",
		Why: func(id string) ([]byte, bool) { return []byte(`{"why":"because"}`), id == "dev 1" },
	}
	for _, f := range set {
		f(&o)
	}
	run(t, o)
	caller := srv.Client(t)
	for end := time.Now().Add(time.Minute); ; {
		var info micro.Info
		m, err := caller.Request("$SRV.INFO."+string(o.Subjects), nil, time.Second)
		if err == nil && json.Unmarshal(m.Data, &info) == nil && len(info.Endpoints) == 6 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the service does not come up")
		}
	}
	return caller
}

// run runs a service until the test ends.
func run(t *testing.T, o Options, set ...func(*Service)) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func ask(t *testing.T, nc *nats.Conn, subject, body string) *nats.Msg {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAnswers(t *testing.T) {
	nc := serve(t, &script{})
	for _, tt := range []struct{ name, subject, body, want string }{
		{"devices", "devices", "", "devices"},
		{"device", "device.dev=201", "", "device dev 1"},
		{"last", "last.a=2Fb", "", "last a/b"},
		{"why", "why.dev=201", "", `{"why":"because"}`},
		{"locations", "locations.d", ` {"to":"2026-01-02T00:00:00Z","x":1, "from":"2026-01-01T00:00:00Z"}`, `locations d {"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z"}`},
		{"alerts", "alerts.d", `{"from":"a","to":"b","alertName":"SOS"}`, `alerts d {"from":"a","to":"b","alertName":"SOS"}`},
		{"alerts of any name", "alerts.d", `{"from":"a","to":"b","alertName":null}`, `alerts d {"from":"a","to":"b"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := ask(t, nc, "plaspy.api."+tt.subject, tt.body)
			if code := m.Header.Get(micro.ErrorCodeHeader); code != "" || string(m.Data) != tt.want {
				t.Errorf("got %s %q, want %q", code, m.Data, tt.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	long := &plaspy.Error{Endpoint: "x", Status: 404, Message: "no such\r\ndevice"}
	for _, tt := range []struct {
		name          string
		err           error
		subject, body string
		code, text    string
	}{
		{"the API's own", long, "device.d", "", "404", "no such device"},
		{"key refused", fmt.Errorf("wait for a token: %w (%w)", context.DeadlineExceeded, &auth.Error{Refused: true}), "last.d", "", "503", "refuses the key"},
		{"no budget", fmt.Errorf("wrapped: %w", plaspy.ErrNoBudget), "last.d", "", "429", "budget"},
		{"no answer", &plaspy.Error{Endpoint: "x", Message: "connection refused"}, "devices", "", "502", "connection refused"},
		{"no success", &plaspy.Error{Endpoint: "x", Status: 200, Message: "not today"}, "devices", "", "502", "not today"},
		{"unknown", errors.New("secret detail"), "devices", "", "500", "could not ask"},
		{"device cannot be sent", &plaspy.IDError{ID: "d", Reason: "is odd"}, "device.d", "", "400", "is odd"},
		{"bad token", nil, "device.a%20b", "", "400", "=25"},
		{"no body", nil, "locations.d", "", "400", "body"},
		{"no from", nil, "locations.d", `{"to":"x"}`, "400", "from"},
		{"to of another type", nil, "alerts.d", `{"from":"x","to":7}`, "400", "to"},
		{"alert of another type", nil, "alerts.d", `{"from":"x","to":"y","alertName":[]}`, "400", "alertName"},
		{"a location", nil, "locations.d", `{"from":"x","to":"y","location":{}}`, "400", "location"},
		{"unknown device", nil, "why.other", "", "404", "does not know"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := ask(t, serve(t, &script{err: tt.err}), "plaspy.api."+tt.subject, tt.body)
			code, text := m.Header.Get(micro.ErrorCodeHeader), m.Header.Get(micro.ErrorHeader)
			if code != tt.code || !strings.Contains(text, tt.text) || strings.Contains(text, "secret") {
				t.Errorf("got %q %q, want %s and %q", code, text, tt.code, tt.text)
			}
		})
	}
}

// TestSlow: a slow answer holds up no other question, and too many concurrent ones are
// refused.
func TestSlow(t *testing.T) {
	t.Parallel()
	s := &script{block: make(chan struct{}), asked: make(chan string, 10)}
	nc := serve(t, s, func(o *Options) { o.Timeout, o.Limit = time.Hour, 2 })
	answer := sync.OnceFunc(func() { close(s.block) })
	defer answer()
	replies := make(chan *nats.Msg, 2)
	for range 2 {
		go func() {
			m, err := nc.Request("plaspy.api.last.d", nil, time.Minute)
			if err != nil {
				t.Error(err)
			}
			replies <- m
		}()
		if q := <-s.asked; q != "last d" {
			t.Fatalf("asked %q", q)
		}
	}
	if m := ask(t, nc, "plaspy.api.last.e", ""); m.Header.Get(micro.ErrorCodeHeader) != "429" {
		t.Errorf("third at once: got %v, want 429", m.Header)
	}
	answer()
	for range 2 {
		if m := <-replies; m == nil || string(m.Data) != "last d" {
			t.Errorf("got %v, want the answer", m)
		}
	}
}

// TestCutOff: an answer that takes longer than the service's limit is cut off.
func TestCutOff(t *testing.T) {
	t.Parallel()
	nc := serve(t, &script{block: make(chan struct{})}, func(o *Options) { o.Timeout = 10 * time.Millisecond })
	for range 2 {
		if m := ask(t, nc, "plaspy.api.last.d", ""); m.Header.Get(micro.ErrorCodeHeader) != "504" {
			t.Errorf("got %v %q, want 504", m.Header, m.Data)
		}
	}
	var stats micro.Stats
	if err := json.Unmarshal(ask(t, nc, "$SRV.STATS.plaspy", "").Data, &stats); err != nil {
		t.Fatal(err)
	}
	for _, e := range stats.Endpoints {
		if e.Name == "last" && !strings.Contains(string(e.Data), `"504":2`) {
			t.Errorf("the stats contain %s", e.Data)
		}
	}
}

// awaitReplicas waits until so many services have all their endpoints.
func awaitReplicas(t *testing.T, nc *nats.Conn, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		sub, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$SRV.INFO.plaspy", sub.Subject, nil); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for m, err := sub.NextMsg(200 * time.Millisecond); err == nil && whole < n; m, err = sub.NextMsg(200 * time.Millisecond) {
			var info micro.Info
			if json.Unmarshal(m.Data, &info) == nil && len(info.Endpoints) == 6 {
				whole++
			}
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		if whole == n {
			return
		}
	}
	t.Fatalf("%d services do not come up", n)
}

// TestWhyOfSeveralReplicas: the replica that polls a device answers, whichever is
// the quicker; if none polls it, the others report their knowledge.
func TestWhyOfSeveralReplicas(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Client(t)
	over := make(chan time.Time)
	end := sync.OnceFunc(func() { close(over) })
	defer end()
	for _, replica := range []string{"a", "b", "c"} {
		run(t, Options{
			Conn: srv.Client(t), Subjects: "plaspy", Devices: &script{}, History: &script{}, Log: slog.New(slog.DiscardHandler), Limit: 4,
			Why:  func(id string) ([]byte, bool) { return []byte(`{"by":"` + replica + `"}`), id != "nobody" },
			Ours: func(id string) bool { return id == "dev-"+replica },
		}, func(s *Service) { s.over = over })
	}
	awaitReplicas(t, nc, 3)
	for _, id := range []string{"dev-c", "dev-a", "dev-b"} {
		// More at once than the others have room for.
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				m, err := nc.Request("plaspy.api.why."+id, nil, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				code := m.Header.Get("Nats-Service-Error-Code")
				if want := `{"by":"` + id[4:] + `"}`; string(m.Data) != want && code != "429" {
					t.Errorf("%s: got %s %s, want %s", id, m.Data, code, want)
				}
			})
		}
		all.Wait()
	}
	end()
	var m *nats.Msg
	err := nats.ErrTimeout
	for range 60 { // while the others are still occupied, there is no answer
		if m, err = nc.Request("plaspy.api.why.dev-z", nil, time.Second); !errors.Is(err, nats.ErrTimeout) {
			break
		}
	}
	if err != nil || !strings.HasPrefix(string(m.Data), `{"by":`) {
		t.Errorf("got %v %v for a device that none polls", m, err)
	}
	m, err = nc.Request("plaspy.api.why.nobody", nil, time.Minute)
	if err != nil || m.Header.Get("Nats-Service-Error-Code") != "404" {
		t.Errorf("got %v %v for a device that none knows", m, err)
	}
}

func TestInfo(t *testing.T) {
	nc := serve(t, &script{}, func(o *Options) { o.Subjects, o.Version = publisher.Subjects("plaspy"), "v1.0.0" })
	var info micro.Info
	if err := json.Unmarshal(ask(t, nc, "$SRV.INFO.plaspy", "").Data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "plaspy" || info.Version != "0.0.0" || len(info.Endpoints) != 6 {
		t.Errorf("got %+v", info)
	}
	for _, e := range info.Endpoints {
		if want := "plaspy.api." + e.Name; e.Subject != want && e.Subject != want+".*" || (e.QueueGroup == "") != (e.Name == "why") {
			t.Errorf("endpoint %+v", e)
		}
	}
}

func FuzzRange(f *testing.F) {
	f.Add([]byte(`{"from":"a","to":"b","alertName":"SOS"}`))
	f.Add([]byte(`{"from":"\u0061","to":"b","alertName":null,"location":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := rangeOf(body, true)
		if err != nil {
			return
		}
		var m map[string]string
		if err := json.Unmarshal(got, &m); err != nil || m["from"] == "" || m["to"] == "" || len(m) > 3 {
			t.Fatalf("%v: %s", err, got)
		}
	})
}

// TestStopWithoutAServer: no subscription can be drained then, and none is waited
// for.
func TestStopWithoutAServer(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Client(t)
	s, err := New(Options{
		Conn: nc, Subjects: "plaspy", Devices: &script{}, History: &script{}, Log: slog.New(slog.DiscardHandler), Timeout: time.Hour,
		Why: func(string) ([]byte, bool) { return nil, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	awaitReplicas(t, srv.Client(t), 1)
	lost := make(chan struct{})
	gone := sync.OnceFunc(func() { close(lost) })
	nc.SetDisconnectErrHandler(func(*nats.Conn, error) { gone() })
	srv.Kill()
	<-lost
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the service waits for a server that is away")
	}
}
