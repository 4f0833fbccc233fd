package inbound

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
)

const producers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// tracedAPI makes the request's span, as the real client does.
type tracedAPI struct {
	*fakeAPI
	tracer *trace.Tracer
}

// Locations posts.
func (a tracedAPI) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	span := a.tracer.Request(ctx, http.MethodPost, "/locations")
	defer span.End("")
	return a.fakeAPI.Locations(ctx, id, body, o)
}

// traced makes a consumer and records its spans.
func traced(r *rig, api *fakeAPI, set ...func(*Consumer)) (*Consumer, *sdktest.SpanRecorder) {
	spans := sdktest.NewSpanRecorder()
	tracer := trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	c := r.consumer(tracedAPI{api, tracer}, set...)
	c.opt.Trace = tracer
	return c, spans
}

// line is a span in short.
func line(s sdk.ReadOnlySpan) string {
	said := map[string]string{}
	for _, a := range s.Attributes() {
		said[string(a.Key)] = a.Value.String()
	}
	return strings.Join(strings.Fields(strings.Join([]string{
		s.Name(), s.SpanKind().String(), said["plaspy.result"], said["plaspy.attempts"], said["error.type"], said["messaging.message.id"],
	}, " ")), " ")
}

// ended waits until nothing is left in the stream, stops, and gives the spans of
// messages and those of requests.
func ended(r *rig, stop func(), spans *sdktest.SpanRecorder) (messages, requests []sdk.ReadOnlySpan) {
	r.t.Helper()
	r.waitCount(subjects.Inbound(), 0)
	stop()
	var settled []sdk.ReadOnlySpan // removals of messages from the stream
	for _, s := range spans.Ended() {
		switch {
		case strings.HasPrefix(s.Name(), "process "):
			messages = append(messages, s)
		case strings.HasPrefix(s.Name(), "settle "):
			settled = append(settled, s)
		default:
			requests = append(requests, s)
		}
	}
	for _, s := range settled {
		if !slices.ContainsFunc(messages, func(m sdk.ReadOnlySpan) bool { return s.Parent().SpanID() == m.SpanContext().SpanID() }) {
			r.t.Errorf("the span %q is not the child of a message's span", s.Name())
		}
	}
	if len(spans.Started()) != len(spans.Ended()) {
		r.t.Errorf("%d spans began and %d ended", len(spans.Started()), len(spans.Ended()))
	}
	return messages, requests
}

func parent(s sdk.ReadOnlySpan) string {
	return "00-" + s.SpanContext().TraceID().String() + "-" + s.SpanContext().SpanID().String() + "-01"
}

func TestMessageAndItsTriesAreOneTrace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	api := newFakeAPI(func(_ string, try int, _ []byte) error {
		if try < 3 {
			return status(500)
		}
		return nil
	})
	replies, err := r.nc.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	r.put(subjects.InLocation("a"), location(1), nats.MsgIdHdr, "m1", "Traceparent", producers, "tracestate", "a=b", message.HeaderReplyTo, "answers")
	c, spans := traced(r, api)
	messages, requests := ended(r, run(t, c), spans)

	if len(messages) != 1 || len(requests) != 3 {
		t.Fatalf("%d spans of messages and %d of requests, want 1 and 3", len(messages), len(requests))
	}
	m := messages[0]
	if got, want := line(m), "process plaspy.in.location.{device} consumer posted 3 m1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := m.Parent().SpanID().String(); got != "b7ad6b7169203331" {
		t.Errorf("the message's parent is %s, want its producer's", got)
	}
	for _, q := range requests {
		if q.Parent().SpanID() != m.SpanContext().SpanID() {
			t.Errorf("a request has the parent %s", q.Parent().SpanID())
		}
	}
	reply, err := replies.NextMsg(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []nats.Header{r.messages(subjects.Results(), 1)[0].Header, reply.Header} {
		if h.Get("traceparent") != parent(m) || h.Get("tracestate") != "a=b" || h.Get("Traceparent") != "" {
			t.Errorf("the result carries %v, want %s", h, parent(m))
		}
	}
}

func TestDeadLetterCarriesTheTrace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, subject string
		body          []byte
		want          string
		requests      int
	}{
		{"refused", subjects.InLocation("a"), location(1), "process plaspy.in.location.{device} consumer dead 1 dead m1", 1},
		{"invalid", subjects.InAlert("a"), []byte("{}"), "process plaspy.in.alert.{device} consumer dead 0 dead m1", 0},
		{"unknown", "plaspy.in.what.a", location(1), "process plaspy.in.{unknown} consumer dead 0 dead m1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.put(tt.subject, tt.body, nats.MsgIdHdr, "m1", "Traceparent", producers)
			c, spans := traced(r, newFakeAPI(func(string, int, []byte) error { return status(400) }))
			messages, requests := ended(r, run(t, c), spans)
			if len(messages) != 1 || len(requests) != tt.requests {
				t.Fatalf("%d spans of messages and %d of requests", len(messages), len(requests))
			}
			if got := line(messages[0]); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			h := r.messages(subjects.DeadLetters(), 1)[0].Header
			if h.Get("traceparent") != parent(messages[0]) || h.Get("Traceparent") != "" || messages[0].Parent().SpanID().String() != "b7ad6b7169203331" {
				t.Errorf("the letter carries %v, want %s", h, parent(messages[0]))
			}
		})
	}
}

// A message that waits for long has no span meanwhile; the next one is of the
// same trace, also if no producer began it.
func TestLongWaitsAreBetweenSpans(t *testing.T) {
	r := newRig(t)
	r.put(subjects.InLocation("a"), location(1))
	api := newFakeAPI(func(_ string, try int, _ []byte) error {
		if try < 3 {
			return status(500)
		}
		return nil
	})
	c, spans := traced(r, api, func(c *Consumer) { c.opt.patience = time.Nanosecond })
	messages, requests := ended(r, run(t, c), spans)
	var got []string
	for i, m := range messages {
		got = append(got, strings.TrimSuffix(line(m), " "+subjects.Inbound()+":1"))
		if i > 0 && (m.SpanContext().TraceID() != messages[0].SpanContext().TraceID() || m.Parent().SpanID() != messages[0].SpanContext().SpanID()) {
			t.Errorf("span %d is not the first one's child", i)
		}
		if requests[i].Parent().SpanID() != m.SpanContext().SpanID() {
			t.Errorf("request %d is not its message's child", i)
		}
	}
	const name = "process plaspy.in.location.{device} consumer "
	if want := []string{name + "retried 1 outage", name + "retried 2 outage", name + "posted 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if h := r.messages(subjects.Results(), 1)[0].Header; h.Get("traceparent") != parent(messages[2]) {
		t.Errorf("the result carries %v", h)
	}
}

// A span that is open when the consumer stops is ended.
func TestStoppingEndsSpans(t *testing.T) {
	r := newRig(t)
	r.put(subjects.InLocation("a"), location(1))
	tried := make(chan struct{}, 100)
	c, spans := traced(r, newFakeAPI(func(string, int, []byte) error {
		tried <- struct{}{}
		return status(http.StatusRequestTimeout)
	}), func(c *Consumer) {
		c.opt.BackoffInitial, c.opt.BackoffMax, c.opt.patience = time.Hour, time.Hour, 2*time.Hour
	})
	stop := run(t, c)
	<-tried
	stop()
	if n := len(spans.Started()); n != len(spans.Ended()) || n < 2 {
		t.Errorf("%d spans began, %d ended", n, len(spans.Ended()))
	}
	for _, s := range spans.Ended() {
		if strings.HasPrefix(s.Name(), "process") && !strings.HasPrefix(line(s), "process plaspy.in.location.{device} consumer 1 stopped") {
			t.Errorf("got %s", line(s))
		}
	}
}

// With tracing off the trace's headers are passed on unchanged.
func TestOffPassesHeadersOn(t *testing.T) {
	r := newRig(t)
	r.put(subjects.InLocation("a"), location(1), "Traceparent", producers)
	r.put(subjects.InAlert("b"), []byte("{}"), "Traceparent", producers)
	stop := run(t, r.consumer(newFakeAPI(nil)))
	r.waitCount(subjects.Inbound(), 0)
	stop()
	for _, m := range r.messages(subjects.Results(), 2) {
		if h := m.Header; h.Get("traceparent") != "" || h.Get("Traceparent") != "" {
			t.Errorf("the result carries %v", h)
		}
	}
	if h := r.messages(subjects.DeadLetters(), 1)[0].Header; h.Get("Traceparent") != producers || h.Get("traceparent") != "" {
		t.Errorf("the letter carries %v", h)
	}
}
