package trace_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"plaspy-bridge/auth/logtest"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/bridge/trace/tracetest"
)

// records keeps a log's lines.
type records struct{ logtest.Log }

func (r *records) log() *slog.Logger { return slog.New(slog.NewJSONHandler(r, nil)) }

// env are variables of OpenTelemetry, without the prefix OTEL_.
type env map[string]string

// set sets them for the test.
func (e env) set(t *testing.T) {
	t.Helper()
	for name, value := range e {
		t.Setenv("OTEL_"+name, value)
	}
}

// endpoint names a collector.
func endpoint(url string) env { return env{"EXPORTER_OTLP_ENDPOINT": url} }

// open makes a tracer that is shut down with the test.
func open(t *testing.T, e env, log *records, reg prometheus.Registerer) *trace.Tracer {
	t.Helper()
	// The exporter's own limits are far, so that none ends an export on a busy machine.
	env{"EXPORTER_OTLP_TIMEOUT": "3600000", "BSP_EXPORT_TIMEOUT": "3600000"}.set(t)
	e.set(t)
	tracer, err := trace.New(t.Context(), trace.Options{Version: "v1", Instance: "r1"}, log.log(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	return tracer
}

// flush ends a tracer within a time, and returns the error of Shutdown.
func flush(t *testing.T, tracer *trace.Tracer, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return tracer.Shutdown(ctx)
}

func spans(t *testing.T, reg *prometheus.Registry, want string) {
	t.Helper()
	head := "# HELP plaspy_bridge_trace_spans_total Ended spans, by result: exported, failed (the export failed), dropped (the queue was full).\n" +
		"# TYPE plaspy_bridge_trace_spans_total counter\n"
	var lines strings.Builder
	for field := range strings.FieldsSeq(want) {
		result, n, _ := strings.Cut(field, "=")
		fmt.Fprintf(&lines, "plaspy_bridge_trace_spans_total{result=%q} %s\n", result, n)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(head+lines.String()), "plaspy_bridge_trace_spans_total"); err != nil {
		t.Error(err)
	}
}

func TestExportOverHTTP(t *testing.T) {
	for name, more := range map[string]env{
		"plain":      {},
		"compressed": {"EXPORTER_OTLP_COMPRESSION": "gzip"},
		"JSON":       {"EXPORTER_OTLP_PROTOCOL": "http/json"},
	} {
		t.Run(name, func(t *testing.T) {
			more.set(t)
			c := tracetest.Start(t)
			log, reg := &records{}, prometheus.NewRegistry()
			tracer := open(t, env{
				"EXPORTER_OTLP_ENDPOINT": c.URL, "EXPORTER_OTLP_HEADERS": "x-key=a%2Cb, x-other = 1 ",
				"RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=other",
			}, log, reg)
			turn(t.Context(), tracer, headers{})
			if err := flush(t, tracer, time.Minute); err != nil {
				t.Fatal(err)
			}
			got := c.Spans()
			if len(got) != 3 || got[2].Name != "poll" || got[0].Parent != got[2].ID || got[1].Trace != got[2].Trace || got[2].Instrumenting != "plaspy-bridge v1" {
				t.Fatalf("got %+v", got)
			}
			want := map[string]string{
				"service.name": "other", "service.version": "v1", "service.instance.id": "r1", "deployment.environment.name": "test",
				"telemetry.sdk.name": "opentelemetry", "telemetry.sdk.language": "go", "telemetry.sdk.version": otel.Version(),
			}
			if diff := cmp.Diff(got[0].Resource, want); diff != "" {
				t.Errorf("resource (-got +want):\n%s", diff)
			}
			r := c.Requests()[0]
			if r.Header.Get("X-Key") != "a,b" || r.Header.Get("X-Other") != "1" || r.URL.Path != "/v1/traces" {
				t.Errorf("the collector got %s %v", r.URL.Path, r.Header)
			}
			spans(t, reg, "dropped=0 exported=3 failed=0")
			if log.String() != "" {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

func TestExportOverTLS(t *testing.T) {
	got := make(chan []tracetest.Span, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s, err := tracetest.Decode(r)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	tracer := open(t, env{"EXPORTER_OTLP_ENDPOINT": srv.URL, "EXPORTER_OTLP_CERTIFICATE": ca}, &records{}, nil)
	turn(t.Context(), tracer, headers{})
	if err := flush(t, tracer, time.Minute); err != nil {
		t.Fatal(err)
	}
	if s := <-got; len(s) != 3 {
		t.Errorf("%d spans arrived", len(s))
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]env{
		"authorities":  {"EXPORTER_OTLP_CERTIFICATE": empty},
		"no such file": {"EXPORTER_OTLP_TRACES_CERTIFICATE": empty + "x"},
		"certificate":  {"EXPORTER_OTLP_CLIENT_CERTIFICATE": empty, "EXPORTER_OTLP_CLIENT_KEY": empty},
	} {
		t.Run(name, func(t *testing.T) {
			e.set(t)
			_, err := trace.New(t.Context(), trace.Options{}, (&records{}).log(), nil)
			file, ok := errors.AsType[*trace.FileError](err)
			if !ok || e[strings.TrimPrefix(file.Variable, "OTEL_")] == "" || strings.Contains(err.Error(), empty) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// grpcCollector takes traces over gRPC.
type grpcCollector struct {
	collector.UnimplementedTraceServiceServer
	got chan []tracetest.Span
	md  chan metadata.MD
}

// Export takes one export.
func (c *grpcCollector) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.md <- md
	c.got <- tracetest.Flatten(r)
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestExportOverGRPC(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &grpcCollector{got: make(chan []tracetest.Span, 1), md: make(chan metadata.MD, 1)}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, c)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	tracer := open(t, env{
		"EXPORTER_OTLP_ENDPOINT": "http://" + l.Addr().String(), "EXPORTER_OTLP_PROTOCOL": "grpc",
		"EXPORTER_OTLP_HEADERS": "x-key=k", "EXPORTER_OTLP_COMPRESSION": "gzip",
	}, &records{}, nil)
	turn(t.Context(), tracer, headers{})
	if err := flush(t, tracer, time.Minute); err != nil {
		t.Fatal(err)
	}
	if s, md := <-c.got, <-c.md; len(s) != 3 || len(md["x-key"]) != 1 || md["x-key"][0] != "k" {
		t.Errorf("%d spans arrived, with %v", len(s), md)
	}
}

// A fault of the collector is one line when it starts and one when it ends, and
// neither contains a secret that the collector sends back.
func TestCollectorFailsAndComesBack(t *testing.T) {
	c := tracetest.Start(t)
	c.Instead(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, fmt.Sprintf("no\n%v %s", r.Header, strings.Repeat("x", 10000)), http.StatusBadRequest)
	})
	log, reg := &records{}, prometheus.NewRegistry()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	tracer := open(t, env{
		"EXPORTER_OTLP_ENDPOINT": strings.Replace(c.URL, "http://", "http://me:pa55word@", 1), "EXPORTER_OTLP_HEADERS": "x-key=s3cret%20",
	}, log, reg)
	for i := range 3 {
		turn(t.Context(), tracer, headers{})
		c.Await(t, "the refusals", func([]tracetest.Span) bool { return len(c.Requests()) > i })
	}
	c.Instead(nil)
	turn(t.Context(), tracer, headers{})
	c.Await(t, "the spans", func(s []tracetest.Span) bool { return len(s) > 0 })
	if err := flush(t, tracer, time.Minute); err != nil {
		t.Error(err)
	}
	text := log.String()
	if n := strings.Count(text, "\n"); n != 2 || !strings.Contains(text, `"msg":"trace export failed, retrying with the next batch"`) ||
		!strings.Contains(text, "400 Bad Request") || !strings.Contains(text, `"msg":"trace export works again","count":`) {
		t.Errorf("logged: %s", text)
	}
	if strings.Contains(text, "s3cret") || strings.Contains(text, "pa55word") || strings.Contains(text, "bWU6cGE1NXdvcmQ") || len(text) > 2000 {
		t.Errorf("logged: %s", text)
	}
}

func TestCollectorIsDown(t *testing.T) {
	log, reg := &records{}, prometheus.NewRegistry()
	tracer := open(t, endpoint("http://me:pa55word@127.0.0.1:1"), log, reg)
	turn(t.Context(), tracer, headers{})
	if err := flush(t, tracer, time.Minute); err == nil {
		t.Error("no error for the lost spans")
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "connection refused") || strings.Contains(text, "pa55word") {
		t.Errorf("logged: %s", text)
	}
	spans(t, reg, "dropped=0 exported=0 failed=3")
	// Twice does nothing, and a span that comes too late is lost quietly.
	turn(t.Context(), tracer, headers{})
	if err := tracer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A collector that takes requests and never answers delays nothing: not the
// spans that end meanwhile, nor the end.
func TestCollectorHangs(t *testing.T) {
	c := tracetest.Start(t)
	c.Instead(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	log, reg := &records{}, prometheus.NewRegistry()
	tracer := open(t, endpoint(c.URL), log, reg)
	const turns = 4000 // more than there is room for
	began := time.Now()
	for range turns {
		turn(t.Context(), tracer, headers{})
	}
	err := flush(t, tracer, 100*time.Millisecond)
	if took := time.Since(began); err == nil || took > time.Minute {
		t.Errorf("it ended after %v with %v", took, err)
	}
	spans(t, reg, fmt.Sprintf("dropped=%d exported=0 failed=8192", 3*turns-8192))
}

func TestNoEndpointNoTracer(t *testing.T) {
	for name, e := range map[string]env{
		"nothing":     {"EXPORTER_OTLP_PROTOCOL": "nonsense"},
		"disabled":    {"EXPORTER_OTLP_ENDPOINT": "http://h", "SDK_DISABLED": "true"},
		"no exporter": {"EXPORTER_OTLP_ENDPOINT": "http://h", "TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			e.set(t)
			tracer, err := trace.New(t.Context(), trace.Options{}, (&records{}).log(), reg)
			if tracer != nil || err != nil {
				t.Errorf("got %v, %v", tracer, err)
			}
			spans(t, reg, "dropped=0 exported=0 failed=0")
		})
	}
}

func TestSamplers(t *testing.T) {
	for _, tt := range []struct {
		sampler  string
		ratio    float64
		of       string // a producer's traceparent, or empty
		sampled  bool
		promised bool // by the flag of the context that is passed on
	}{
		{"", 0, "", true, true},
		{"parentbased_always_on", 0, "", true, true},
		{"parentbased_always_on", 0, producer[:54] + "0", false, false},
		{"parentbased_always_off", 1, "", false, false},
		{"parentbased_always_off", 1, producer, true, true},
		{"parentbased_traceidratio", 0, "", false, false},
		{"always_on", 0, producer[:54] + "0", true, true},
		{"always_off", 1, producer, false, false},
		{"traceidratio", 1, producer[:54] + "0", true, true},
		{"traceidratio", 0, producer, false, false},
	} {
		t.Run(fmt.Sprintf("%s %v %s", tt.sampler, tt.ratio, tt.of), func(t *testing.T) {
			c := tracetest.Start(t)
			tracer := open(t, env{
				"EXPORTER_OTLP_TRACES_ENDPOINT": c.URL, "TRACES_SAMPLER": tt.sampler, "TRACES_SAMPLER_ARG": fmt.Sprint(tt.ratio),
			}, &records{}, nil)
			s := tracer.Process(t.Context(), headers{"traceparent": {tt.of}}, message)
			child := tracer.Request(s.In(t.Context()), "GET", "/")
			child.Sent(&trace.Request{URL: &url.URL{}})
			child.End("")
			h := headers{}
			s.Inject(h)
			s.EndProcess("posted", 1, "")
			if err := flush(t, tracer, time.Minute); err != nil {
				t.Fatal(err)
			}
			if got := len(c.Spans()); got != map[bool]int{true: 2}[tt.sampled] {
				t.Errorf("%d spans arrived", got)
			}
			if got := strings.HasSuffix(h["traceparent"][0], "-01"); got != tt.promised {
				t.Errorf("passed on %v", h)
			}
		})
	}
}

func FuzzParseHeaders(f *testing.F) {
	f.Add("a=b,c=d%20e")
	f.Add("=,a,%zz=%zz, b = \x00")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := trace.ParseHeaders(text)
		if err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("the error quotes the text: %v", err)
			}
			return
		}
		header := http.Header{}
		for name, value := range h {
			header.Set(name, value)
		}
		// net/http sends them.
		var b bytes.Buffer
		if err := header.Write(&b); err != nil || strings.Count(b.String(), "\r\n") != len(header) {
			t.Errorf("%q is written as %q: %v", text, b.String(), err)
		}
	})
}
