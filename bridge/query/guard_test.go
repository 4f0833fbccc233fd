package query

import (
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// TestAnswersInboxesOnly checks that the service publishes to inboxes only, for any reply
// subject of a requester, and does not send the API a request for any other.
func TestAnswersInboxesOnly(t *testing.T) {
	t.Parallel()
	s := &script{asked: make(chan string, 100)}
	nc := serve(t, s, func(o *Options) { o.Subjects = "_fleet" })
	if _, err := nc.Subscribe(">", func(m *nats.Msg) {
		requested := strings.HasPrefix(m.Subject, "_fleet.api.") || strings.HasPrefix(m.Subject, "$SRV.") && len(m.Data) == 0
		if !requested && !regexp.MustCompile(`^(_INBOX|_INBOX_gateway)\..`).MatchString(m.Subject) {
			t.Errorf("the service published to %s", m.Subject)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, reply := range []string{
		"$JS.API.STREAM.PURGE.PLASPY_INBOUND", "$KV.plaspy_replicas.inbound", "$SRV.PING", "$SYS.REQ.SERVER.PING", "plaspy.location.truck7",
		"plaspy.in.location.truck8", "plaspy", "elsewhere", "_fleet.location.truck7", "_fleet", "_", "_INBOX", "",
	} {
		for _, subject := range []string{"_fleet.api.devices", "_fleet.api.device.=", "_fleet.api.last.d", "_fleet.api.why.dev=201", "$SRV.PING", "$SRV.INFO._fleet", "$SRV.STATS"} {
			if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, inbox := range []string{"_INBOX.a.b", "_INBOX_gateway.a"} {
		sub, err := nc.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishMsg(&nats.Msg{Subject: "_fleet.api.device.x", Reply: inbox}); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.NextMsg(time.Minute); err != nil {
			t.Errorf("no answer to %s: %v", inbox, err)
		}
		select {
		case q := <-s.asked:
			if q != "device x" {
				t.Errorf("the API was asked for %s", q)
			}
		default:
			t.Errorf("the API was not asked for %s", inbox)
		}
	}
	// Each endpoint has its own queue of requests.
	var last *micro.EndpointStats
	for deadline := time.Now().Add(time.Minute); last == nil || last.NumErrors < 13 && time.Now().Before(deadline); {
		var stats micro.Stats
		if err := json.Unmarshal(ask(t, nc, "$SRV.STATS._fleet", "").Data, &stats); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(stats.Endpoints, func(e *micro.EndpointStats) bool { return e.Name == "last" })
		if i < 0 {
			t.Fatal("no statistics of the endpoint last")
		}
		last = stats.Endpoints[i]
	}
	if last.NumErrors != 13 || !strings.Contains(string(last.Data), `"403":13`) {
		t.Errorf("stats %+v %s", last, last.Data)
	}
}

// TestDiscovery: each verb is answered for all services, for all instances of
// this one, and for this instance.
func TestDiscovery(t *testing.T) {
	nc := serve(t, &script{})
	var ping micro.Ping
	if err := json.Unmarshal(ask(t, nc, "$SRV.PING", "").Data, &ping); err != nil || ping.Type != micro.PingResponseType || ping.Name != "plaspy" || ping.ID == "" {
		t.Fatalf("ping %+v, %v", ping, err)
	}
	ask(t, nc, "plaspy.api.device.x", "")
	for _, suffix := range []string{"", ".plaspy", ".plaspy." + ping.ID} {
		var info micro.Info
		if err := json.Unmarshal(ask(t, nc, "$SRV.INFO"+suffix, "").Data, &info); err != nil || info.Type != micro.InfoResponseType || info.ID != ping.ID {
			t.Errorf("info%s %+v, %v", suffix, info, err)
		}
		var stats micro.Stats
		if err := json.Unmarshal(ask(t, nc, "$SRV.STATS"+suffix, "").Data, &stats); err != nil || stats.Type != micro.StatsResponseType || len(stats.Endpoints) != 6 {
			t.Errorf("stats%s %+v, %v", suffix, stats, err)
		}
		if e := stats.Endpoints[1]; e.Name != "device" || e.NumRequests != 1 || e.ProcessingTime <= 0 || e.AverageProcessingTime != e.ProcessingTime {
			t.Errorf("stats%s of an endpoint: %+v", suffix, e)
		}
	}
}

// sized answers with so many bytes.
type sized struct {
	script
	n int
}

// Device answers.
func (s *sized) Device(context.Context, string) (plaspy.Answer, error) {
	return plaspy.Answer{Status: 200, Body: []byte(strings.Repeat("x", s.n))}, nil
}

// TestAnswerTooLarge: an answer that does not fit with its headers is an error
// answer, and one that just fits arrives.
func TestAnswerTooLarge(t *testing.T) {
	api := &sized{}
	nc := serve(t, api)
	most := int(nc.MaxPayload())
	header := len("NATS/1.0\r\ncontent-type: application/json\r\n\r\n")
	for n, want := range map[int]string{most - header: "", most - header + 1: "502", most: "502", most + 1: "502"} {
		api.n = n
		m := ask(t, nc, "plaspy.api.device.d", "")
		if code := m.Header.Get(micro.ErrorCodeHeader); code != want || want == "" && len(m.Data) != n {
			t.Errorf("%d bytes of %d: code %q, %d bytes, want %q", n, most, code, len(m.Data), want)
		}
	}
}

// TestRunAgain: a service that has ended can run again, as often as wanted, with
// all its slots.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	caller := srv.Client(t)
	s, err := New(Options{Conn: srv.Client(t), Subjects: "plaspy", Devices: &script{}, History: &script{}, Limit: 1, Log: slog.New(slog.DiscardHandler),
		Why: func(string) ([]byte, bool) { return nil, false }})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		awaitReplicas(t, caller, 1)
		if m := ask(t, caller, "plaspy.api.device.d", ""); string(m.Data) != "device d" {
			t.Errorf("got %v %s", m.Header, m.Data)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestPermissionMended: a subscription that is not permitted is made again when
// it is.
func TestPermissionMended(t *testing.T) {
	user := &server.User{Username: "query", Password: "s3cret-password", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}}
	var opts *server.Options
	srv := natstest.Start(t, natstest.Listen, func(o *server.Options) {
		o.Users = []*server.User{user, {Username: "caller", Password: "s3cret-password"}}
		opts = o
	})
	refused := make(chan error, 100)
	connect := func(name string) *nats.Conn {
		nc, err := nats.Connect(srv.ClientURL(), nats.UserInfo(name, "s3cret-password"), nats.Timeout(time.Minute), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	caller, service := connect("caller"), connect("query")
	s, err := New(Options{Conn: service, Subjects: "plaspy", Devices: &script{}, History: &script{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.pause = 10 * time.Millisecond
	natstest.Run(t, func(ctx context.Context) { _ = s.Run(ctx) })
	if err := <-refused; !strings.Contains(err.Error(), "plaspy.api") && !strings.Contains(err.Error(), "$SRV") {
		t.Fatal(err)
	}
	mended := *opts
	allowed := *user
	allowed.Permissions = nil
	mended.Users = []*server.User{&allowed, opts.Users[1]}
	if err := srv.ReloadOptions(&mended); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		m, err := caller.Request("plaspy.api.device.d", nil, time.Second)
		if err == nil && string(m.Data) == "device d" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no query service after the permissions were mended: %v", err)
		}
	}
}
