package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/trace/tracetest"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// traced makes a bridge with variables of the environment, which end before it returns.
// The bridge reads them while it is made, so the test can be parallel afterwards.
func traced(t *testing.T, cfg config.Config, env map[string]string) (b *Bridge, log *logtest.Log) {
	t.Helper()
	log = new(logtest.Log)
	ctx := t.Context()
	t.Run("made", func(t *testing.T) {
		for name, value := range env {
			t.Setenv(name, value)
		}
		var err error
		b, err = New(ctx, cfg, "1.2.3", slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if err != nil {
			t.Error(err)
		}
	})
	if b == nil {
		t.FailNow()
	}
	return b, log
}

// run runs a bridge; stop returns how long it took to stop.
func run(t *testing.T, b *Bridge) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = sync.OnceValue(func() time.Duration {
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		return time.Since(began)
	})
	t.Cleanup(func() { stop() })
	return stop
}

// spanOf finds the span that a traceparent names.
func spanOf(t *testing.T, spans []tracetest.Span, traceparent string) tracetest.Span {
	t.Helper()
	for _, s := range spans {
		if traceparent == "00-"+s.Trace+"-"+s.ID+"-01" {
			return s
		}
	}
	t.Fatalf("no span has the context %q", traceparent)
	return tracetest.Span{}
}

// below are the names of a span's children.
func below(spans []tracetest.Span, parent tracetest.Span) []string {
	var names []string
	for _, s := range spans {
		if s.Parent == parent.ID && s.Trace == parent.Trace {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

func named(spans []tracetest.Span, name string) []tracetest.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s tracetest.Span) bool { return s.Name != name })
}

const (
	gateway = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	caller  = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01"
)

const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

// TestTraces runs a whole bridge between a simulated API, its own NATS server
// and a collector, and wants every path in one trace.
func TestTraces(t *testing.T) {
	c := tracetest.Start(t)
	api, cfg := fleetOf(t, sim.Options{Devices: 2, Seed: 1, Profile: fleet.EverySecond})
	cfg.DevicesRefresh = time.Hour
	b, log := traced(t, cfg, map[string]string{
		endpoint:                     strings.Replace(c.URL, "http://", "http://me:pa55word@", 1),
		"OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret",
		"OTEL_RESOURCE_ATTRIBUTES":   "deployment.environment.name=test",
	})
	t.Parallel()
	stop := run(t, b)
	follow(t, b, "plaspy.location.*", 4)
	id := api.IDs()[0]
	device := publisher.Encode(id)
	for subject, body := range map[string]string{
		"plaspy.in.location." + device: `{"dateTime":"2026-01-02T03:04:01Z","latitude":41.987654,"longitude":-74.123456}`,
		"plaspy.in.location.stranger":  `{"dateTime":"2026-01-02T03:04:01Z","latitude":41.987654,"longitude":-74.123456}`,
	} {
		m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{"traceparent": {gateway}}}
		if _, err := natstest.JetStream(t, b.broker.conn.Conn).PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	question(t, b, &nats.Msg{Subject: "plaspy.api.device." + device, Header: nats.Header{"traceparent": {caller}}})
	result, other := next(t, b, "PLASPY_RESULTS", 1), next(t, b, "PLASPY_RESULTS", 2)
	if result.Get("plaspy-posted") == "" { // that of the message that became a dead letter
		result = other
	}
	letter := next(t, b, "PLASPY_DLQ", 1)
	if n, err := deadletter.Open(natstest.JetStream(t, b.broker.conn.Conn), b.broker.pub.Subjects()).Replay(t.Context(), deadletter.Job{}); n.Done != 1 || err != nil {
		t.Fatalf("replayed %+v: %v", n, err)
	}
	again := next(t, b, "PLASPY_DLQ", 2)
	event := first(t, b, "PLASPY_EVENTS", "plaspy.location.*", 1)
	stop()
	spans := c.Spans()

	publish := spanOf(t, spans, event.Get("traceparent"))
	if publish.Name != "publish plaspy.location.{device}" || publish.Kind != "producer" || publish.Attributes["messaging.message.id"] != event.Get("ce-id") {
		t.Errorf("the event carries the context of %+v", publish)
	}
	poll := spanOf(t, spans, "00-"+publish.Trace+"-"+publish.Parent+"-01")
	if got := fmt.Sprint(below(spans, poll)); poll.Parent != "" || !strings.Contains(got, "GET /api/devices/{id}/lastLocation publish plaspy.location.{device}") {
		t.Errorf("the poll has the children %v", got)
	}
	if poll.Attributes["plaspy.result"] != "changed" || poll.Start.After(publish.Start) || poll.End.Before(publish.End) {
		t.Errorf("the poll is %+v", poll)
	}

	for header, want := range map[string]string{"result": "posted", "letter": "dead", "letter again": "dead"} {
		h := map[string]nats.Header{"result": result, "letter": letter, "letter again": again}[header]
		s := spanOf(t, spans, h.Get("traceparent"))
		if s.Name != "process plaspy.in.location.{device}" || s.Trace != gateway[3:35] || s.Attributes["plaspy.result"] != want {
			t.Errorf("the %s carries the context of %+v", header, s)
		}
		if got := below(spans, s); !slices.Contains(got, "POST /api/devices/{id}/locations") || !slices.Contains(got, "settle plaspy.in.location.{device}") {
			t.Errorf("the message of the %s has the children %v", header, got)
		}
		if header != "letter again" && s.Parent != gateway[36:52] || header == "letter again" && s.Parent != spanOf(t, spans, letter.Get("traceparent")).ID {
			t.Errorf("the message of the %s has the parent %s", header, s.Parent)
		}
	}

	queries := named(spans, "query plaspy.api.device.{device}")
	if len(queries) == 0 || len(c.Requests()) == 0 {
		t.Fatalf("%d spans in %d requests, and none of the query", len(spans), len(c.Requests()))
	}
	query := queries[0]
	if got := below(spans, query); query.Trace != caller[3:35] || query.Parent != caller[36:52] || query.Kind != "server" || !slices.Equal(got, []string{"GET /api/devices/{id}"}) {
		t.Errorf("the query is %+v, with %v below", query, got)
	}
	// Devices that were assigned after the list was read are published by a second
	// reading of it.
	var listed []string
	for _, s := range named(spans, "list") {
		listed = append(listed, below(spans, s)...)
	}
	slices.Sort(listed)
	if want := []string{"GET /api/devices", "publish plaspy.device.{device}", "publish plaspy.device.{device}"}; !slices.Equal(listed, want) {
		t.Errorf("the lists have the children %v, want %v", listed, want)
	}
	checkSecrets(t, spans, log)
	if r := c.Requests()[0]; r.Header.Get("X-Key") != "s3cret" || r.URL.Path != "/v1/traces" {
		t.Errorf("the collector was asked for %s with %v", r.URL.Path, r.Header)
	}
	if got := poll.Resource; got["service.name"] != "plaspy-bridge" || got["service.version"] != "1.2.3" || got["service.instance.id"] != "test" || got["deployment.environment.name"] != "test" {
		t.Errorf("resource %v", got)
	}
}

// next waits for a message of a stream and returns its headers.
func next(t *testing.T, b *Bridge, stream string, seq uint64) nats.Header {
	t.Helper()
	return first(t, b, stream, ">", seq)
}

// first waits for the first message of a subject at or after a sequence, and
// returns its headers. The order in which device events and locations are stored
// is not fixed, so a test that wants a location says so.
func first(t *testing.T, b *Bridge, stream, subject string, seq uint64) nats.Header {
	t.Helper()
	c, err := natstest.JetStream(t, b.broker.conn.Conn).OrderedConsumer(t.Context(), stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: seq,
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatalf("message %d of %s: %v", seq, stream, err)
	}
	return m.Headers()
}

// attributes are all attributes that spans may have.
var attributes = []string{
	"plaspy.device.id", "plaspy.result", "plaspy.published", "plaspy.stream.sequence", "plaspy.attempts", "error.type",
	"http.request.method", "url.template", "url.full", "server.address", "server.port", "http.response.status_code", "http.request.resend_count",
	"messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name", "messaging.destination.template",
	"messaging.message.id", "messaging.message.body.size", "messaging.client.id", "rpc.system.name", "rpc.method", "rpc.response.status_code",
}

// checkSecrets checks that the collector got no secret and no position, and that
// the log has no secret.
func checkSecrets(t *testing.T, spans []tracetest.Span, log *logtest.Log) {
	t.Helper()
	for _, s := range spans {
		for name, value := range s.Attributes {
			if !slices.Contains(attributes, name) {
				t.Errorf("%s has the attribute %s, which is not on the list", s.Name, name)
			}
			if strings.Contains(value, "?") {
				t.Errorf("%s shows a URL's query: %s", s.Name, value)
			}
		}
	}
	timeless := slices.Clone(spans) // the digits of a time may be those of a position
	for i := range timeless {
		timeless[i].Start, timeless[i].End = time.Time{}, time.Time{}
	}
	all := fmt.Sprintf("%+v", timeless)
	for _, secret := range []string{"sim-key", "pa55word", "s3cret", "Bearer", "41.98", "74.12"} {
		if strings.Contains(all, secret) {
			t.Errorf("%s shows in the traces", secret)
		}
	}
	for _, secret := range []string{"sim-key", "pa55word", "s3cret", "Bearer"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s shows in the log", secret)
		}
	}
	if !strings.Contains(log.String(), `"msg":"exporting traces","component":"trace","url":"http://[redacted]@`) {
		t.Error("the log does not name the collector")
	}
}

// A collector that is not there, or takes requests and never answers, costs the
// bridge nothing but a line, and a bounded time at its end.
func TestCollectorIsOfNoImportance(t *testing.T) {
	const delay = "OTEL_BSP_SCHEDULE_DELAY" // short, so that the collector is met before the end
	hanging, unused := tracetest.Start(t), tracetest.Start(t)
	hanging.Instead(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	made := func(env map[string]string) (*Bridge, *logtest.Log) {
		_, cfg := fleetOf(t, sim.Options{Devices: 2, Seed: 1, Profile: fleet.EverySecond})
		cfg.ShutdownTimeout = 30 * time.Second // a fifth of it is for the traces
		return traced(t, cfg, env)
	}
	down, downLog := made(map[string]string{endpoint: "http://127.0.0.1:1", delay: "50"})
	hangs, hangsLog := made(map[string]string{endpoint: hanging.URL, delay: "50"})
	off, _ := made(map[string]string{endpoint: unused.URL, delay: "50", "OTEL_SDK_DISABLED": "true"})
	t.Parallel()
	all := []*Bridge{down, hangs, off}
	var stops []func() time.Duration
	for _, b := range all {
		stops = append(stops, run(t, b))
	}
	for _, b := range all {
		follow(t, b, "plaspy.location.*", 2)
	}
	hanging.Await(t, "an export", func([]tracetest.Span) bool { return len(hanging.Requests()) > 0 })
	if h := next(t, off, "PLASPY_EVENTS", 3); h.Get("traceparent") != "" {
		t.Errorf("an event carries %v", h)
	}
	var stopping sync.WaitGroup
	for i, stop := range stops {
		stopping.Go(func() {
			if took := stop(); took > all[i].cfg.ShutdownTimeout {
				t.Errorf("stopped after %v, which is more than %v", took, all[i].cfg.ShutdownTimeout)
			}
		})
	}
	stopping.Wait()
	if n := strings.Count(downLog.String(), "trace export failed"); n != 1 {
		t.Errorf("%d lines about the collector, want 1", n)
	}
	for _, log := range []*logtest.Log{downLog, hangsLog} {
		if !strings.Contains(log.String(), "stopped before all traces were exported") {
			t.Error("the spans that were lost at the end were not logged")
		}
	}
	if n := len(unused.Requests()); n != 0 || off.telemetry.tracer != nil {
		t.Errorf("%d exports", n)
	}
}

// A certificate that is none is a wrong configuration, found at start.
func TestTracesWithoutACertificate(t *testing.T) {
	_, cfg := fleetOf(t, sim.Options{Devices: 1})
	ca := filepath.Join(t.TempDir(), "ca")
	t.Setenv(endpoint, "https://collector.test")
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)
	if err := os.WriteFile(ca, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if faults, ok := errors.AsType[config.Faults](err); !ok || !strings.Contains(faults.Error(), "OTEL_EXPORTER_OTLP_CERTIFICATE") || strings.Contains(faults.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

// A bridge that cannot start leaves nothing of its tracer behind.
func TestTracesOfABridgeThatDoesNotStart(t *testing.T) {
	_, cfg := fleetOf(t, sim.Options{Devices: 1})
	t.Setenv(endpoint, "http://127.0.0.1:1")
	cfg.EmbeddedAddr = "127.0.0.1:99999"
	if _, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("it started")
	}
}
