package query

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
)

// inside returns the span of its requests.
type inside struct {
	*script
	spans chan api.SpanContext
}

// Device answers.
func (i *inside) Device(ctx context.Context, id string) (plaspy.Answer, error) {
	i.spans <- api.SpanContextFromContext(ctx)
	return i.script.Device(ctx, id)
}

func TestQueriesHaveSpans(t *testing.T) {
	t.Parallel()
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		name, subject, parent, failure string
		result                         int
		err                            error
	}{
		{name: "answered", subject: "device.dev=201", parent: "b7ad6b7169203331", result: 200},
		{name: "no caller's span", subject: "device.dev=201", result: 200},
		{name: "no such device", subject: "device.d", result: 404, err: &plaspy.Error{Status: http.StatusNotFound}},
		{name: "broken", subject: "device.d", result: 502, failure: "502", err: &plaspy.Error{}},
		{name: "no budget", subject: "device.d", result: 429, failure: "429", err: plaspy.ErrNoBudget},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := sdktest.NewSpanRecorder()
			a := &inside{&script{err: tt.err}, make(chan api.SpanContext, 1)}
			nc := serve(t, a, func(o *Options) { o.Trace = trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(r))) })
			m := nats.NewMsg("plaspy.api." + tt.subject)
			if tt.parent != "" {
				m.Header.Set("Traceparent", caller)
			}
			if _, err := nc.RequestMsg(m, time.Minute); err != nil {
				t.Fatal(err)
			}
			s := r.Ended()[0]
			if s.Name() != "query plaspy.api.device.{device}" || s.SpanKind() != api.SpanKindServer || (<-a.spans).SpanID() != s.SpanContext().SpanID() {
				t.Errorf("the span is %s, a %s", s.Name(), s.SpanKind())
			}
			for _, want := range []attribute.KeyValue{
				attribute.String("rpc.system.name", "nats_micro"), attribute.String("rpc.method", "plaspy.api/device"), attribute.String("rpc.response.status_code", strconv.Itoa(tt.result)),
			} {
				if !slices.Contains(s.Attributes(), want) {
					t.Errorf("no %v in %v", want, s.Attributes())
				}
			}
			if got := s.Parent().SpanID(); tt.parent != "" && got.String() != tt.parent || tt.parent == "" && got.IsValid() {
				t.Errorf("it has the parent %s, want %q", got, tt.parent)
			}
			said := map[string]string{}
			for _, attr := range s.Attributes() {
				said[string(attr.Key)] = attr.Value.String()
			}
			if said["error.type"] != tt.failure || said["plaspy.result"] != strconv.Itoa(tt.result) || said["messaging.destination.name"] != m.Subject {
				t.Errorf("got %v", said)
			}
		})
	}
}
