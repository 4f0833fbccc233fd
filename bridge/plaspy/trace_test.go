package plaspy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/trace"
)

// spanLines are the spans that have ended: name, attributes by name, status.
func spanLines(r *sdktest.SpanRecorder, keys ...string) []string {
	var lines []string
	for _, s := range r.Ended() {
		line := s.Name()
		for _, a := range s.Attributes() {
			if slices.Contains(keys, string(a.Key)) {
				line += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func recorder() (func(*plaspy.Options), *trace.Tracer, *sdktest.SpanRecorder) {
	r := sdktest.NewSpanRecorder()
	tracer := trace.From(sdk.NewTracerProvider(sdk.WithSpanProcessor(r)))
	return func(o *plaspy.Options) { o.Trace = tracer }, tracer, r
}

func TestRequestsHaveSpans(t *testing.T) {
	set, tracer, spans := recorder()
	refuse := true
	c := newClient(t, "https://api.example.com/base", roundTripper(func(r *http.Request) (*http.Response, error) {
		for name := range r.Header {
			if name := strings.ToLower(name); name == "traceparent" || name == "tracestate" || name == "baggage" {
				t.Errorf("the API is sent %s", name)
			}
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/Token"):
			return tokenAnswer(), nil
		case refuse:
			refuse = false
			return answer(401, ""), nil
		case r.Method == http.MethodPost:
			return answer(503, ""), nil
		}
		return answer(200, `{"success":true,"lastLocation":null}`), nil
	}), set)
	ctx, root := tracer.Poll(t.Context())
	if err := poll(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Locations(ctx, "dev 1", []byte("{}"), plaspy.PostOptions{}); err == nil {
		t.Fatal("no error")
	}
	root.EndPoll("dev 1", "changed", 0)
	got := spanLines(spans, "http.response.status_code", "http.request.resend_count", "error.type", "url.full", "server.port")
	const at = " url.full=https://api.example.com/base/api/"
	want := []string{
		"POST /api/Auth/Token" + at + "Auth/Token server.port=443 http.response.status_code=200",
		"GET /api/devices/{id}/lastLocation" + at + "devices/dev%201/lastLocation server.port=443 http.response.status_code=401 error.type=401",
		"POST /api/Auth/Token" + at + "Auth/Token server.port=443 http.response.status_code=200",
		"GET /api/devices/{id}/lastLocation" + at + "devices/dev%201/lastLocation server.port=443 http.request.resend_count=1 http.response.status_code=200",
		"POST /api/devices/{id}/locations" + at + "devices/dev%201/locations server.port=443 http.response.status_code=503 error.type=503",
		"poll",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("spans (-got +want):\n%s", diff)
	}
	ended := spans.Ended()
	for _, s := range ended[:5] {
		// All requests share the token, so its request belongs to none of their traces.
		if child := s.Parent().SpanID() == ended[5].SpanContext().SpanID(); child == strings.HasSuffix(s.Name(), "Token") {
			t.Errorf("%s has the parent %s", s.Name(), s.Parent().SpanID())
		}
	}
}

func TestSpansOfRequestsThatFail(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	for _, tt := range []struct {
		name  string
		f     func(r *http.Request) (*http.Response, error)
		limit time.Duration // of the caller's context; 0: none
		want  string
	}{
		{"refused", func(*http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
		}, 0, "error.type=connection_refused"},
		{"broken", func(*http.Request) (*http.Response, error) { return nil, errors.New(theToken) }, 0, "error.type=transport"},
		{"no answer", hang, 0, "error.type=timeout"},
		{"caller gone", hang, time.Second, "error.type=canceled"},
		{"answer cut off", func(*http.Request) (*http.Response, error) {
			res := answer(200, "{")
			res.ContentLength, res.Body = 100, io.NopCloser(bodyFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }))
			return res, nil
		}, 0, "http.response.status_code=200 error.type=transport"},
		{"answer stops", func(r *http.Request) (*http.Response, error) {
			res := answer(200, "")
			res.ContentLength, res.Body = -1, io.NopCloser(bodyFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, context.Cause(r.Context())
			}))
			return res, nil
		}, 0, "http.response.status_code=200 error.type=timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set, _, spans := recorder()
				ctx := t.Context()
				if tt.limit > 0 {
					limited, cancel := context.WithCancelCause(ctx)
					defer cancel(nil)
					defer time.AfterFunc(tt.limit, func() { cancel(errors.New("closing")) }).Stop()
					ctx = limited
				}
				if err := poll(ctx, reply(t, tt.f, set)); err == nil {
					t.Fatal("no error")
				}
				got := spanLines(spans, "http.response.status_code", "error.type")
				if want := "GET /api/devices/{id}/lastLocation " + tt.want; len(got) != 2 || got[1] != want {
					t.Errorf("got %q, want %q", got, want)
				}
				for _, s := range spans.Ended() {
					if strings.Contains(fmt.Sprint(s.Attributes(), s.Status(), s.Events()), "secret") {
						t.Errorf("a secret shows: %v", s)
					}
				}
			})
		})
	}
}

// TestOffCostsARequestNothing counts the allocations of a request with tracing off
// and with a sampler that leaves everything out. The difference is the cost of tracing.
func TestOffCostsARequestNothing(t *testing.T) {
	allocs := func(tracer *trace.Tracer) float64 {
		c := reply(t, func(*http.Request) (*http.Response, error) {
			return answer(200, `{"success":true,"lastLocation":null}`), nil
		}, func(o *plaspy.Options) { o.Trace = tracer })
		var buf []byte
		least := math.Inf(1)
		for range 50 { // others allocate meanwhile, and the race detector empties pools
			least = min(least, testing.AllocsPerRun(20, func() {
				l, err := c.LastLocation(t.Context(), "d", buf)
				if err != nil {
					t.Fatal(err)
				}
				buf = l.Buf
			}))
		}
		return least
	}
	off, unsampled := allocs(nil), allocs(trace.From(sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))))
	t.Logf("%v allocations off, %v unsampled", off, unsampled)
	// Before there was any tracing in the client it was as many.
	if most := 19.0; off > most || unsampled <= off {
		t.Errorf("%v allocations off, want at most %v; %v unsampled", off, most, unsampled)
	}
}
