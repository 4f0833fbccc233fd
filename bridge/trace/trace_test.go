package trace_test

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"plaspy-bridge/bridge/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// headers are a message's.
type headers map[string][]string

func (h headers) SetHeader(name, value string) { h[name] = []string{value} }

var (
	address = &url.URL{Scheme: "https", Host: "api.test", Path: "/api/devices/dev 1/lastLocation", RawPath: "/api/devices/dev%201/lastLocation", RawQuery: "key=s3cret"}
	message = trace.Message{Subject: "plaspy.location.dev=201", Template: "plaspy.location.{device}", ID: "e1"}
)

// turn is all that a changed poll says to a tracer.
func turn(ctx context.Context, t *trace.Tracer, h trace.Headers) {
	ctx, poll := t.Poll(ctx)
	request := t.Request(ctx, "GET", "/api/devices/{id}/lastLocation")
	request.Sent(&trace.Request{Method: "GET", Template: "/api/devices/{id}/lastLocation", URL: address, Status: 200})
	request.End("")
	publish := t.Publish(ctx, message.Template, h)
	publish.EndPublish(&message, 7, "")
	poll.EndPoll("dev 1", "changed", 1)
}

func recorded(o ...sdk.TracerProviderOption) (*trace.Tracer, *sdktest.SpanRecorder) {
	r := sdktest.NewSpanRecorder()
	return trace.From(sdk.NewTracerProvider(append(o, sdk.WithSpanProcessor(r))...)), r
}

func TestOffIsFree(t *testing.T) {
	var off *trace.Tracer
	h := headers{}
	ctx := t.Context()
	if got := testing.AllocsPerRun(1000, func() { turn(ctx, off, h) }); got != 0 {
		t.Errorf("%v allocations a poll, want none", got)
	}
	inbound := func() {
		s := off.Process(ctx, h, message)
		if s.In(ctx) != ctx {
			t.Error("a context was created")
		}
		s.Inject(h)
		s.Fail("dead")
		s.EndProcess("dead", 1, "")
		queried, s := off.Query(ctx, h, message)
		s.EndQuery(500)
		listed, s := off.List(ctx)
		s.End("x")
		if queried != ctx || listed != ctx || s.On() {
			t.Error("something was created")
		}
	}
	if got := testing.AllocsPerRun(1000, inbound); got != 0 {
		t.Errorf("%v allocations for all else, want none", got)
	}
	if len(h) != 0 {
		t.Errorf("headers were set: %v", h)
	}
	if err := off.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := trace.From(noop.NewTracerProvider()).Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// short is a span in a line: name, kind, attributes.
func short(s sdk.ReadOnlySpan) string {
	b := s.Name() + " " + s.SpanKind().String()
	for _, a := range s.Attributes() {
		b += " " + string(a.Key) + "=" + a.Value.String()
	}
	if s.Status().Code.String() != "Unset" {
		b += " " + s.Status().Code.String() + s.Status().Description
	}
	return b
}

func TestPollIsOneTrace(t *testing.T) {
	tracer, r := recorded()
	h := headers{}
	turn(t.Context(), tracer, h)
	ended := r.Ended()
	var got []string
	for _, s := range ended {
		got = append(got, short(s))
	}
	want := []string{
		"GET /api/devices/{id}/lastLocation client http.request.method=GET url.template=/api/devices/{id}/lastLocation" +
			" url.full=https://api.test/api/devices/dev%201/lastLocation server.address=api.test server.port=443 http.response.status_code=200",
		"publish plaspy.location.{device} producer messaging.system=nats messaging.operation.name=publish messaging.operation.type=send" +
			" messaging.destination.name=plaspy.location.dev=201 messaging.destination.template=plaspy.location.{device} messaging.message.id=e1 plaspy.stream.sequence=7",
		"poll internal plaspy.device.id=dev 1 plaspy.result=changed plaspy.published=1",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Fatalf("spans (-got +want):\n%s", diff)
	}
	root := ended[2]
	for _, s := range ended[:2] {
		if s.Parent().SpanID() != root.SpanContext().SpanID() || s.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("%s is not the poll's child", s.Name())
		}
	}
	publish := ended[1].SpanContext()
	if got, want := h[trace.HeaderParent], "00-"+publish.TraceID().String()+"-"+publish.SpanID().String()+"-01"; len(got) != 1 || got[0] != want {
		t.Errorf("traceparent %v, want %s", got, want)
	}
}

func TestUnsampledPollMakesNoChildren(t *testing.T) {
	tracer, r := recorded(sdk.WithSampler(sdk.NeverSample()))
	h := headers{}
	turn(t.Context(), tracer, h)
	if n := len(r.Started()); n != 0 {
		t.Errorf("%d spans were recorded", n)
	}
	// The headers say that it is not sampled.
	if got := h[trace.HeaderParent]; len(got) != 1 || !strings.HasSuffix(got[0], "-00") {
		t.Errorf("traceparent %v, want one that ends in 00", got)
	}
}

func TestFailures(t *testing.T) {
	tracer, r := recorded()
	ctx, poll := tracer.Poll(t.Context())
	refused := tracer.Request(ctx, "POST", "/x")
	refused.Sent(&trace.Request{Method: "POST", Template: "/x", URL: &url.URL{Scheme: "http", Host: "127.0.0.1"}, Resent: 1, Status: 401})
	refused.End("")
	cut := tracer.Request(ctx, "GET", "/x")
	cut.Sent(&trace.Request{Method: "GET", Template: "/x", URL: &url.URL{Scheme: "http", Host: "[::1]:8080"}})
	cut.End("timeout")
	cut.End("again")
	tracer.Publish(ctx, "p", headers{}).EndPublish(&trace.Message{Subject: "s", Template: "p"}, 0, "conflict")
	poll.Fail("retry")
	poll.EndPoll("d", "error", 0)
	poll.Fail("too late")
	_, list := tracer.List(t.Context())
	list.End("")
	var got []string
	for _, s := range r.Ended() {
		got = append(got, short(s))
	}
	want := []string{
		"POST /x client http.request.method=POST url.template=/x url.full=http://127.0.0.1 server.address=127.0.0.1 server.port=80" +
			" http.request.resend_count=1 http.response.status_code=401 error.type=401 Error",
		"GET /x client http.request.method=GET url.template=/x url.full=http://[::1]:8080 server.address=::1 server.port=8080 error.type=timeout Error",
		"publish p producer messaging.system=nats messaging.operation.name=publish messaging.operation.type=send" +
			" messaging.destination.name=s messaging.destination.template=p error.type=conflict Error",
		"poll internal error.type=retry plaspy.device.id=d plaspy.result=error plaspy.published=0 Error",
		"list internal",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("spans (-got +want):\n%s", diff)
	}
}

const elsewhere = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"

const producer = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestReceivedMessageGoesOnWithItsTrace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header headers
		parent string // of the span; empty: it is a root
		state  string
	}{
		{"none", nil, "", ""},
		{"sampled", headers{"traceparent": {producer}, "tracestate": {"a=b,c=d"}}, "b7ad6b7169203331", "a=b,c=d"},
		{"spelt by an HTTP library", headers{"Traceparent": {producer}, "Tracestate": {"a=b"}}, "b7ad6b7169203331", "a=b"},
		{"state is nonsense", headers{"traceparent": {producer}, "tracestate": {"=,="}}, "b7ad6b7169203331", ""},
		{"cut off", headers{"traceparent": {producer[:54]}}, "", ""},
		{"zeros", headers{"traceparent": {"00-00000000000000000000000000000000-b7ad6b7169203331-01"}}, "", ""},
		{"no value", headers{"traceparent": {}}, "", ""},
		{"of a CloudEvent", headers{"ce-traceparent": {producer}, "ce-tracestate": {"a=b"}}, "b7ad6b7169203331", "a=b"},
		{"renamed by a server", headers{"Xraceparent": {producer}, "tracestate": {"a=b"}}, "b7ad6b7169203331", "a=b"},
		{"its own before the CloudEvent's", headers{"traceparent": {producer}, "ce-traceparent": {elsewhere}}, "b7ad6b7169203331", ""},
		{"the CloudEvent's if its own is nonsense", headers{"traceparent": {"x"}, "ce-traceparent": {producer}}, "b7ad6b7169203331", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tracer, r := recorded()
			s := tracer.Process(t.Context(), tt.header, trace.Message{Subject: "p.in.x", Template: "p.in.{device}", ID: "m", Bytes: 3})
			_ = tracer.Request(s.In(t.Context()), "POST", "/x")
			out := headers{"Traceparent": {"old"}, "TRACESTATE": {"old"}, "Ce-TraceParent": {"old"}, "Xraceparent": {"old"}}
			s.Inject(out)
			s.EndProcess("posted", 2, "")
			_, q := tracer.Query(t.Context(), tt.header, message)
			q.EndQuery(404)
			ended, started := r.Ended(), r.Started()
			for _, e := range ended {
				if e.Parent().IsValid() != (tt.parent != "") || tt.parent != "" && e.Parent().SpanID().String() != tt.parent {
					t.Errorf("%s has the parent %s, want %q", e.Name(), e.Parent().SpanID(), tt.parent)
				}
			}
			if got := started[1].Parent().SpanID(); got != ended[0].SpanContext().SpanID() {
				t.Errorf("the request's parent is %s, want the message's span", got)
			}
			want := headers{"traceparent": {"00-" + ended[0].SpanContext().TraceID().String() + "-" + ended[0].SpanContext().SpanID().String() + "-01"}}
			if tt.state != "" {
				want["tracestate"] = []string{tt.state}
			}
			for _, name := range slices.Collect(maps.Keys(want)) { // and as attributes of a CloudEvent
				want["ce-"+name] = want[name]
			}
			if diff := cmp.Diff(out, want); diff != "" {
				t.Errorf("passed on (-got +want):\n%s", diff)
			}
			if got, want := short(ended[0]), "process p.in.{device} consumer messaging.system=nats messaging.operation.name=process messaging.operation.type=process"+
				" messaging.destination.name=p.in.x messaging.destination.template=p.in.{device} messaging.message.id=m messaging.message.body.size=3"+
				" plaspy.result=posted plaspy.attempts=2"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if got := short(ended[1]); !strings.HasPrefix(got, "query plaspy.location.{device} server") || !strings.HasSuffix(got, " plaspy.result=404") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// The sampling decision of a producer is followed, and passed on.
func TestUnsampledProducer(t *testing.T) {
	tracer, r := recorded()
	s := tracer.Process(t.Context(), headers{"traceparent": {strings.TrimSuffix(producer, "1") + "0"}}, message)
	out := headers{}
	s.Inject(out)
	s.EndProcess("posted", 1, "")
	if len(r.Started()) != 0 {
		t.Error("it was recorded")
	}
	if got := out["traceparent"]; len(got) != 1 || !strings.HasPrefix(got[0], producer[:36]) || !strings.HasSuffix(got[0], "-00") || strings.Contains(got[0], producer[36:52]) {
		t.Errorf("passed on %v, want the trace, a span of its own, unsampled", got)
	}
}

func FuzzReceivedHeaders(f *testing.F) {
	f.Add("traceparent", producer, "a=b")
	f.Add("Traceparent", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", strings.Repeat("a=b,", 40))
	f.Add("traceparent", "ff-\x00", "\x7f")
	f.Fuzz(func(t *testing.T, name, parent, state string) {
		tracer, r := recorded(sdk.WithSampler(sdk.AlwaysSample()))
		s := tracer.Process(t.Context(), headers{name: {parent}, "tracestate": {state}}, message)
		out := headers{}
		s.Inject(out)
		s.EndProcess("posted", 1, "")
		got := r.Ended()[0]
		if !got.SpanContext().IsValid() {
			t.Fatal("a span without a context")
		}
		// The context that is passed on is read unchanged.
		_, back := recorded()
		again := trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(back)))
		again.Process(t.Context(), out, message).EndProcess("", 0, "")
		if p := back.Ended()[0].Parent(); p.SpanID() != got.SpanContext().SpanID() || p.TraceState().String() != got.SpanContext().TraceState().String() {
			t.Errorf("passed on %v, read as %v", out, p)
		}
		for _, v := range out {
			if strings.ContainsAny(v[0], "\r\n") {
				t.Errorf("a line break is passed on: %q", v)
			}
		}
	})
}

// BenchmarkPollSpans measures the cost of the spans of a changed poll alone.
func BenchmarkPollSpans(b *testing.B) {
	discard := sdk.WithSpanProcessor(sdk.NewSimpleSpanProcessor(sdktest.NewNoopExporter()))
	for _, row := range []struct {
		name   string
		tracer *trace.Tracer
	}{
		{"off", nil},
		{"noop", trace.From(noop.NewTracerProvider())},
		{"unsampled", trace.From(sdk.NewTracerProvider(discard, sdk.WithSampler(sdk.NeverSample())))},
		{"on", trace.From(sdk.NewTracerProvider(discard))},
	} {
		b.Run(row.name, func(b *testing.B) {
			h, ctx := headers{}, b.Context()
			b.ReportAllocs()
			for b.Loop() {
				turn(ctx, row.tracer, h)
			}
		})
	}
}

// Spans of messages name the server and the connection, also after a change of server.
func TestConnected(t *testing.T) {
	tracer, r := recorded()
	for _, tt := range []struct{ server, want string }{
		{"nats://nats.example.com:4222", "messaging.client.id=7 server.address=nats.example.com server.port=4222 "},
		{"tls://[::1]:4443", "messaging.client.id=7 server.address=::1 server.port=4443 "},
		{"nats://nats", "messaging.client.id=7 server.address=nats "},
		{"", "messaging.client.id=7 "},
	} {
		tracer.Connected(tt.server, 7)
		s := tracer.Publish(t.Context(), "plaspy.location.{device}", headers{})
		s.EndPublish(&trace.Message{Subject: "plaspy.location.a", Template: "plaspy.location.{device}"}, 1, "")
		tracer.Process(t.Context(), nil, trace.Message{Subject: "plaspy.in.location.a", Template: "plaspy.in.location.{device}"}).EndProcess("posted", 1, "")
		ended := r.Ended()
		for i, kind := range []string{"producer ", "consumer "} {
			if got := short(ended[len(ended)-2+i]); !strings.Contains(got, kind+tt.want+"messaging.system=nats") {
				t.Errorf("%q: got %s", tt.server, got)
			}
		}
	}
	var off *trace.Tracer
	off.Connected("nats://nats", 7)
}
