package trace_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"plaspy-bridge/bridge/trace"
)

// meters collects metrics. Each answer of status is given to one export, then 200.
func meters(t *testing.T, status ...int) (url string, got <-chan *collector.ExportMetricsServiceRequest) {
	t.Helper()
	exports := make(chan *collector.ExportMetricsServiceRequest, 100)
	answers := make(chan int, len(status))
	for _, s := range status {
		answers <- s
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		export := new(collector.ExportMetricsServiceRequest)
		if err != nil || r.URL.Path != "/v1/metrics" || proto.Unmarshal(body, export) != nil {
			t.Errorf("%s %s cannot be read: %v", r.Method, r.URL, err)
		}
		select {
		case s := <-answers:
			http.Error(w, "the header was "+r.Header.Get("X-Key"), s)
		default:
			w.Header().Set("Content-Type", "application/x-protobuf")
		}
		exports <- export
	}))
	t.Cleanup(srv.Close)
	return srv.URL, exports
}

func TestMetricsAreExported(t *testing.T) {
	url, got := meters(t, http.StatusBadRequest)
	log := &records{}
	env{
		"METRICS_EXPORTER": "prometheus, otlp", "METRIC_EXPORT_INTERVAL": "100", "EXPORTER_OTLP_ENDPOINT": url,
		"EXPORTER_OTLP_METRICS_HEADERS": "x-key=0123456789abcdef", "RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
	}.set(t)
	reg := prometheus.NewRegistry()
	polls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "plaspy_bridge_polls_total", Help: "Polls."}, []string{"result"})
	reg.MustRegister(polls)
	polls.WithLabelValues("changed").Add(7)
	m, err := trace.NewMetrics(t.Context(), trace.Options{Version: "v1", Instance: "r1"}, log.log(), reg)
	if err != nil {
		t.Fatal(err)
	}
	<-got // the one that is refused
	export := <-got
	polls.WithLabelValues("changed").Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for len(got) > 0 {
		export = <-got // the last one is that of the shutdown
	}
	text := export.String()
	for _, want := range []string{"plaspy_bridge_polls_total", `"changed"`, "as_double:8", "service.instance.id", `"r1"`, "deployment.environment.name"} {
		if !strings.Contains(strings.ReplaceAll(text, ": ", ":"), want) {
			t.Errorf("the export lacks %s: %s", want, text)
		}
	}
	lines := log.String()
	if strings.Count(lines, "metrics export failed") != 1 || strings.Count(lines, "metrics export works again") != 1 {
		t.Errorf("one failure was logged as\n%s", lines)
	}
	if strings.Contains(lines, "0123456789abcdef") {
		t.Errorf("the log shows a header:\n%s", lines)
	}
}

func TestMetricsAreOff(t *testing.T) {
	for name, e := range map[string]env{
		"by default":  {"EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"none":        {"METRICS_EXPORTER": "none"},
		"prometheus":  {"METRICS_EXPORTER": "prometheus"},
		"SDK is off":  {"METRICS_EXPORTER": "otlp", "SDK_DISABLED": "true"},
		"other names": {"METRICS_EXPORTER": "otlpx,console"},
	} {
		t.Run(name, func(t *testing.T) {
			e.set(t)
			m, err := trace.NewMetrics(t.Context(), trace.Options{}, new(records).log(), prometheus.NewRegistry())
			if m != nil || err != nil {
				t.Errorf("got %v, %v, want none", m, err)
			}
			if err := m.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMetricsEndpoint(t *testing.T) {
	for _, test := range []struct {
		env  env
		want string
	}{
		{env{}, "http://localhost:4318"},
		{env{"EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://localhost:4317"},
		{env{"EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "http://a:1"},
		{env{"EXPORTER_OTLP_ENDPOINT": "http://a:1", "EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:1/v1/metrics"}, "http://b:1/v1/metrics"},
	} {
		t.Run(test.want, func(t *testing.T) {
			test.env.set(t)
			t.Setenv("OTEL_METRICS_EXPORTER", "otlp")
			if got := trace.MetricsEndpoint(); got != test.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestExemplars: the observation of a recorded span names its trace.
func TestExemplars(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "h", Buckets: []float64{1}})
	trace.Span{}.Observe(h, 0.5)
	read := func() *dto.Bucket {
		var m dto.Metric
		if err := h.Write(&m); err != nil || len(m.GetHistogram().GetBucket()) == 0 {
			t.Fatalf("buckets of %v: %v", &m, err)
		}
		return m.GetHistogram().GetBucket()[0]
	}
	if b := read(); b.GetCumulativeCount() != 1 || b.Exemplar != nil {
		t.Errorf("without a span: %v", b)
	}
	_, span := tracer.Poll(t.Context())
	span.Observe(h, 0.25)
	span.EndPoll("a", "changed", 1)
	b := read()
	want := spans.Ended()[0].SpanContext().TraceID().String()
	if b.GetCumulativeCount() != 2 || b.GetExemplar().GetValue() != 0.25 || b.GetExemplar().GetLabel()[0].GetValue() != want {
		t.Errorf("with a span of trace %s: %v", want, b)
	}
}

// TestSettle: the removal of a message is a child of the span that processed it.
func TestSettle(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	m := trace.Message{Subject: "plaspy.in.location.a", Template: "plaspy.in.location.{device}", ID: "1"}
	processed := tracer.Process(t.Context(), nil, m)
	tracer.Settle(processed, m).End("not_recorded")
	tracer.Settle(processed, m).End("")
	processed.EndProcess("posted", 1, "")
	tracer.Settle(trace.Span{}, m).End("") // of a message that is not traced
	var none *trace.Tracer
	none.Settle(trace.Span{}, m).End("")
	list := spans.Ended()
	if len(list) != 3 {
		t.Fatalf("%d spans, want 3", len(list))
	}
	for i, failure := range []string{"not_recorded", ""} {
		s := list[i]
		attributes := map[string]string{}
		for _, a := range s.Attributes() {
			attributes[string(a.Key)] = a.Value.String()
		}
		if s.Name() != "settle plaspy.in.location.{device}" || s.Parent().SpanID() != list[2].SpanContext().SpanID() ||
			attributes["messaging.operation.type"] != "settle" || attributes["error.type"] != failure || attributes["messaging.message.id"] != "1" {
			t.Errorf("span %s with %v", s.Name(), attributes)
		}
	}
}

// A collector that does not answer costs a stop the time that the caller allows, and
// standard error gets nothing.
func TestMetricsOfAHangingCollector(t *testing.T) {
	asked, over := make(chan struct{}, 10), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-over
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(over) })
	log := &records{}
	env{"METRICS_EXPORTER": "otlp", "METRIC_EXPORT_INTERVAL": "100", "EXPORTER_OTLP_ENDPOINT": srv.URL}.set(t)
	m, err := trace.NewMetrics(t.Context(), trace.Options{}, log.log(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := m.Shutdown(ctx); err == nil {
		t.Error("a shutdown without an answer has no error")
	}
}
