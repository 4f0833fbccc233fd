package bridge

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	dto "github.com/prometheus/client_model/go"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

// users are the users of deploy/nats.conf, which reads their passwords from the
// environment.
var users = []string{"BRIDGE", "QUERY", "SUBSCRIBER", "GATEWAY", "OPERATOR", "SYSTEM"}

func TestMain(m *testing.M) {
	for _, user := range users {
		if err := os.Setenv(user+"_PASSWORD", "pass-of-"+user); err != nil {
			panic(err)
		}
	}
	natstest.Main(m)
}

// fleetOf is a simulated API on a real port, and the configuration for it.
func fleetOf(t testing.TB, o sim.Options) (*sim.Server, config.Config) {
	t.Helper()
	s := sim.New(o)
	l, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	base, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s, config.Config{
		BaseURL: *base, Username: "sim", APIKey: "sim-key", Timeout: time.Minute,
		Prefix: "plaspy", StreamReplicas: 1, Retention: time.Hour, ReplicaID: "test", DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0",
		Workers: 4, PollInterval: 100 * time.Millisecond, Schedule: config.ScheduleFixed, TripStartWeight: 1, DevicesRefresh: time.Minute,
		IgnoreFields: []string{"inactiveSeconds"}, BackfillAfter: time.Second, Query: true, Inbound: true, InboundWorkers: 4, InboundMaxAge: time.Hour,
		BackoffInitial: 50 * time.Millisecond, BackoffMax: time.Second, HTTPAddr: "127.0.0.1:0", ShutdownTimeout: time.Minute,
	}
}

// launch runs a bridge until the test ends, or stop is called.
func launch(t testing.TB, cfg config.Config) (b *Bridge, stop func()) {
	t.Helper()
	b, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(cfg.ShutdownTimeout + time.Minute):
			t.Error("not stopped within the shutdown timeout")
		}
	}
	t.Cleanup(stop)
	return b, stop
}

// TestLogNamesAddresses checks that the log has the addresses of the listeners: with port 0 nothing else does.
func TestLogNamesAddresses(t *testing.T) {
	t.Parallel()
	_, cfg := fleetOf(t, sim.Options{})
	var log logtest.Log
	b, err := New(t.Context(), cfg, "test", slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	for _, url := range []string{"http://" + b.HTTPAddr().String(), b.broker.embedded.ClientURL()} {
		if log.Count(url) == 0 {
			t.Errorf("no %s in the log:\n%s", url, log.String())
		}
	}
}

// readyz asks until ok accepts the status and the answer.
func readyz(t testing.TB, b *Bridge, what string, ok func(status int, body string) bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var last string
	for {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/readyz", b.HTTPAddr()), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err == nil {
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			last = string(body)
			if ok(res.StatusCode, last) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("readyz does not show %s but %s", what, last)
		}
	}
}

func ready(status int, _ string) bool { return status == http.StatusOK }

func shows(reason string) func(int, string) bool {
	return func(status int, body string) bool {
		return status == http.StatusServiceUnavailable && strings.Contains(body, reason)
	}
}

func TestEventsFlowAndTheStoreIsKept(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 5, Seed: 1, Profile: fleet.EverySecond, Record: 1000})
	b, stop := launch(t, cfg)
	readyz(t, b, "ready", ready)
	events := follow(t, b, "plaspy.location.*", 10)
	stop()
	if got := api.Counts(); got.Tokens.Issued != 1 {
		t.Errorf("%d tokens were issued, want 1", got.Tokens.Issued)
	}
	again, _ := launch(t, cfg)
	if more := follow(t, again, "plaspy.location.*", len(events)+1); more[0] != events[0] {
		t.Error("the store of the first run is gone")
	}
}

// follow waits for the first messages of a subject.
func follow(t *testing.T, b *Bridge, subject string, n int) []string {
	t.Helper()
	readyz(t, b, "ready", ready)
	c, err := natstest.JetStream(t, b.broker.conn.Conn).OrderedConsumer(t.Context(), b.broker.pub.Subjects().Events(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		t.Fatal(err)
	}
	it, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	var list []string
	for len(list) < n {
		m, err := it.Next(jetstream.NextMaxWait(time.Minute))
		if err != nil {
			t.Fatalf("%d of %d messages: %v", len(list), n, err)
		}
		list = append(list, string(m.Data()))
	}
	return list
}

func TestReadinessShowsWhatIsWrong(t *testing.T) {
	t.Parallel()
	t.Run("wrong key", func(t *testing.T) {
		t.Parallel()
		_, cfg := fleetOf(t, sim.Options{Devices: 1})
		cfg.APIKey = "wrong-key-of-somebody"
		b, _ := launch(t, cfg)
		readyz(t, b, "the refused key", func(status int, body string) bool {
			if strings.Contains(body, "wrong-key") {
				t.Fatal("the key is shown")
			}
			return shows("check PLASPY_USERNAME and the API key")(status, body)
		})
	})
	t.Run("API down", func(t *testing.T) {
		t.Parallel()
		_, cfg := fleetOf(t, sim.Options{Devices: 1})
		cfg.BaseURL.Host = "127.0.0.1:1"
		b, _ := launch(t, cfg)
		readyz(t, b, "the refused connection", shows("connection refused"))
	})
	t.Run("no device chosen", func(t *testing.T) {
		t.Parallel()
		_, cfg := fleetOf(t, sim.Options{Devices: 3})
		cfg.Devices = []string{"another-fleet-*"}
		b, _ := launch(t, cfg)
		// Ready all the same: the choice may be meant.
		readyz(t, b, "the choice", func(status int, body string) bool {
			return status == http.StatusOK && strings.Contains(body, "none of the account's 3 devices is chosen")
		})
	})
	t.Run("NATS down, then up", func(t *testing.T) {
		t.Parallel()
		_, cfg := fleetOf(t, sim.Options{Devices: 1, Profile: fleet.EverySecond})
		srv := natstest.Start(t, natstest.Listen)
		srv.Kill()
		cfg.NATSURL = config.Servers(srv.ClientURL())
		b, _ := launch(t, cfg)
		readyz(t, b, "no connection", shows("not connected to NATS"))
		srv.Restart()
		follow(t, b, "plaspy.location.*", 1)
	})
}

func TestInboundIsPostedAndComesBackMarked(t *testing.T) {
	t.Parallel()
	api, cfg := fleetOf(t, sim.Options{Devices: 2, Seed: 1, Profile: fleet.Unchanged, Record: 100})
	b, _ := launch(t, cfg)
	readyz(t, b, "ready", ready)
	results, err := b.broker.conn.SubscribeSync("plaspy.result.location.*")
	if err != nil {
		t.Fatal(err)
	}
	locations, err := b.broker.conn.SubscribeSync("plaspy.location.device0001")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Add(time.Hour).Format(time.RFC3339)
	body := fmt.Sprintf(`{"location":{"dateTime":%q,"latitude":4.5,"longitude":-74.25}}`, at)
	if _, err := natstest.JetStream(t, b.broker.conn.Conn).Publish(t.Context(), "plaspy.in.location.device0001", []byte(body), jetstream.WithMsgID("one")); err != nil {
		t.Fatal(err)
	}
	result, err := results.NextMsg(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(result.Data); !strings.Contains(got, `"id":"one"`) || !strings.Contains(got, `"status":20`) {
		t.Errorf("result %s", got)
	}
	for {
		m, err := locations.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("the posted location is not published: %v", err)
		}
		if strings.Contains(string(m.Data), at) {
			if !strings.Contains(string(m.Data), `"origin":"inbound"`) {
				t.Errorf("the location returned without its origin: %s", m.Data)
			}
			break
		}
	}
	if posts := api.Posts("device0001"); len(posts) != 1 || posts[0].Key != "one" {
		t.Errorf("posts %+v, want one with the message's id", posts)
	}
	answer := question(t, b, &nats.Msg{Subject: "plaspy.api.why.device0001"})
	if got := string(answer.Data); !strings.Contains(got, `"decisions":[`) {
		t.Errorf("why: %s %v", got, answer.Header)
	}
}

// TestHistogramsAreNativeToo: a scraper that accepts native histograms gets them, and
// any other the buckets.
func TestHistogramsAreNativeToo(t *testing.T) {
	_, cfg := fleetOf(t, sim.Options{Devices: 1, Seed: 1})
	b, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.closers.close(); err != nil {
			t.Error(err)
		}
	})
	families, err := b.telemetry.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM || !strings.HasPrefix(f.GetName(), "plaspy_bridge_") {
			continue
		}
		n++
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h.Schema == nil || len(h.GetBucket()) == 0 {
				t.Errorf("%s has no native histogram, or no buckets", f.GetName())
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d histograms", n)
	}
}

// question asks the query service, which may not be there yet.
func question(t *testing.T, b *Bridge, m *nats.Msg) (answer *nats.Msg) {
	t.Helper()
	soon(t, m.Subject, func(ctx context.Context) (err error) {
		answer, err = b.broker.conn.RequestMsgWithContext(ctx, m)
		return err
	})
	return answer
}
