package publisher_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// logged makes a running publisher, its log and its metrics.
func logged(t *testing.T, srv *natstest.Server) (*publisher.Publisher, *logtest.Log, *prometheus.Registry) {
	t.Helper()
	log, reg := new(logtest.Log), prometheus.NewRegistry()
	p, err := publisher.New(srv.Conn(t), subjects, slog.New(slog.NewTextHandler(log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.EnsureStreams(t.Context(), natstest.Own(t, p), subjects.Streams(publisher.StreamOptions{})); err != nil {
		t.Fatal(err)
	}
	natstest.Run(t, p.Run)
	return p, log, reg
}

// refusals is the metric of events that can never be stored.
func refusals(t *testing.T, reg *prometheus.Registry, kind string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "plaspy_bridge_events_refused_total" && m.GetLabel()[0].GetValue() == kind {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}

// TestRefusedEventHoldsUpNothing: an event with headers that no stream takes is
// logged once, counted, and ends its chain; others continue and nothing is
// degraded.
func TestRefusedEventHoldsUpNothing(t *testing.T) {
	t.Parallel()
	p, log, reg := logged(t, natstest.Start(t))
	good := func(n int) {
		t.Helper()
		if err := publish(t, p, subjects.LocationEvent(location(fmt.Sprint("good", n), `{"v":1}`, 1), 0)); err != nil {
			t.Fatal(err)
		}
		if got := p.Trouble(); got != "" {
			t.Errorf("trouble %q", got)
		}
	}
	good(0)
	for n := range 4 {
		e := subjects.LocationEvent(location("poison", `{"v":1}`, 7), 0)
		e.SetHeader("x", strings.Repeat("x", 65<<10))
		if err := publish(t, p, e); !errors.Is(err, publisher.ErrUnstorable) {
			t.Fatalf("got %v, want ErrUnstorable", err)
		}
		good(n + 1)
	}
	if got := log.Count("can never be stored"); got != 1 {
		t.Errorf("logged %d times, want once: %s", got, log.String())
	}
	if got := refusals(t, reg, "location"); got != 4 {
		t.Errorf("%d counted, want 4", got)
	}
	other := subjects.LocationEvent(location("poison", `{"v":2}`, 8), 0)
	if err := publish(t, p, other); err != nil {
		t.Errorf("a later event of the device: %v", err)
	}
	if n := testutil.CollectAndCount(reg); n == 0 {
		t.Error("no metrics")
	}
}

// TestManyEdges: a location with more alert edges than headers have room for is
// stored.
func TestManyEdges(t *testing.T) {
	p, _, _ := logged(t, natstest.Start(t))
	l := location("d", `{"v":1}`, 1)
	l.Edges = strings.Repeat("+Alert=20number=20one ", 4000)
	if err := publish(t, p, subjects.LocationEvent(l, 0)); err != nil {
		t.Fatal(err)
	}
	edges := messages(t, natstest.Own(t, p))[0].Header.Get(publisher.HeaderEdges)
	if len(edges) < 30_000 || len(edges) > 32<<10 || !strings.HasSuffix(edges, "one") {
		t.Errorf("%d bytes of edges that end in %q", len(edges), edges[max(0, len(edges)-30):])
	}
}

// TestLocationsThatCannotBeStored: a stream that takes no location is trouble, and
// one location among others that it does not take is not.
func TestLocationsThatCannotBeStored(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p, _, _ := logged(t, srv)
	st, err := natstest.Own(t, p).Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(size int32) {
		t.Helper()
		cfg := st.CachedInfo().Config
		cfg.MaxMsgSize = size
		if _, err := natstest.Own(t, p).UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	send := func(device, pad string) error {
		t.Helper()
		return publish(t, p, subjects.LocationEvent(location(device, `{"x":"`+pad+`"}`, 1), 0))
	}
	limit(256)
	if err := send("a", ""); !errors.Is(err, publisher.ErrUnstorable) {
		t.Fatalf("got %v, want ErrUnstorable", err)
	}
	if got := p.Trouble(); !strings.Contains(got, "locations cannot be stored") {
		t.Errorf("trouble %q of a stream that stores no location", got)
	}
	limit(2000)
	if err := send("a", ""); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 2000)
	for n, device := range []string{"b", "c", "d"} {
		if got := p.Trouble(); got != "" {
			t.Errorf("trouble %q after %d", got, n)
		}
		if err := send(device, large); !errors.Is(err, publisher.ErrUnstorable) {
			t.Fatalf("got %v, want ErrUnstorable", err)
		}
		if n < 2 && !strings.Contains(p.Degraded(), "cannot be stored") {
			t.Errorf("degraded %q after %d", p.Degraded(), n)
		}
	}
	if got := p.Trouble(); !strings.Contains(got, "locations cannot be stored") {
		t.Errorf("trouble %q after three devices in a row", got)
	}
	if err := send("e", ""); err != nil {
		t.Fatal(err)
	}
	if p.Trouble() != "" || p.Degraded() != "" {
		t.Errorf("trouble %q, degraded %q after a location was stored", p.Trouble(), p.Degraded())
	}
}

// TestForeignAnswer: an answer of another stream, as a copy by subject in another
// account or domain gives it, is not taken for the events stream's.
func TestForeignAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, answer string }{
		{"stored by another stream", `{"stream":"COPY","seq":77,"domain":"hub"}`},
		{"a duplicate of another stream", `{"stream":"COPY","seq":77,"duplicate":true}`},
		{"refused by another stream's fence", `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"},"stream":"COPY","seq":0}`},
		{"too large for another stream", `{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"COPY","seq":0}`},
		{"the same name in another domain", `{"stream":"PLASPY_EVENTS","seq":77,"domain":"hub"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := natstest.Start(t)
			p, log, _ := logged(t, srv)
			if err := publish(t, p, subjects.LocationEvent(location("first", `{"v":0}`, 1), 0)); err != nil {
				t.Fatal(err)
			}
			nc := srv.Client(t)
			if _, err := nc.Subscribe("plaspy.location.*", func(m *nats.Msg) { _ = nc.Publish(m.Reply, []byte(tt.answer)) }); err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			var expect uint64
			for n := range 5 {
				e := subjects.LocationEvent(location("d", fmt.Sprintf(`{"v":%d}`, n), uint64(n)), expect)
				err := publish(t, p, e)
				if err != nil && !errors.Is(err, publisher.ErrFound) {
					t.Fatal(err)
				}
				expect = e.Seq
			}
			got := messages(t, natstest.Own(t, p))
			if len(got) != 6 || expect != 6 {
				t.Errorf("%d events, the last one's sequence %d, want 6 and 6", len(got), expect)
			}
			if n := log.Count("another stream captures the event subjects"); n > 1 {
				t.Errorf("logged %d times", n)
			}
		})
	}
}

// TestStoreFull checks that the reason says in words that the store is full.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p, log, _ := logged(t, srv)
	st, err := natstest.Own(t, p).Stream(t.Context(), "PLASPY_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	cfg.MaxBytes, cfg.Discard = 100, 1 // new
	if _, err := natstest.Own(t, p).UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	stored := make(chan error, 1)
	if err := p.Publish(t.Context(), []*publisher.Event{subjects.LocationEvent(location("d", `{"v":1}`, 1), 0)}, func(err error) { stored <- err }); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "trouble", func() bool { return strings.Contains(p.Trouble(), "max_bytes") })
	cfg.MaxBytes = -1
	if _, err := natstest.Own(t, p).UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if p.Trouble() != "" || log.Count("publishing works again") != 1 {
		t.Errorf("trouble %q, log %s", p.Trouble(), log.String())
	}
}
