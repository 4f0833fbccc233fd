// Package tracetest is a collector of traces for tests: a real server for
// OTLP/HTTP in the test's own process, which can be made to misbehave.
package tracetest

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Span is a span as the collector got it.
type Span struct {
	Name, Kind    string // the kind in lower case: internal, client, ...
	Trace, ID     string // in hexadecimal
	Parent        string // likewise; empty for a root
	State         string // the trace state
	Failed        bool
	Start, End    time.Time
	Attributes    map[string]string
	Resource      map[string]string
	Instrumenting string // the scope's name and version
}

// Collector takes traces. It is safe for concurrent use.
type Collector struct {
	URL string // of its root, for OTEL_EXPORTER_OTLP_ENDPOINT

	server *httptest.Server

	mu       sync.Mutex
	spans    []Span
	requests []*http.Request // without their bodies
	instead  http.HandlerFunc
	arrived  chan struct{} // has room for one
}

// Start starts a collector that ends with the test. Handlers that hang have to
// look at their request's context.
func Start(tb testing.TB) *Collector {
	tb.Helper()
	c := &Collector{arrived: make(chan struct{}, 1)}
	c.server = httptest.NewServer(c)
	c.URL = c.server.URL
	tb.Cleanup(func() {
		c.server.CloseClientConnections()
		c.server.Close()
	})
	return c
}

// Instead has f answer from now on; nil means the collector itself.
func (c *Collector) Instead(f http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instead = f
}

// ServeHTTP takes one export.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A server notices that its client has gone only once it has read everything.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c.mu.Lock()
	c.requests = append(c.requests, r)
	instead := c.instead
	c.mu.Unlock()
	defer c.tell()
	if instead != nil {
		instead(w, r)
		return
	}
	spans, err := Decode(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.spans = append(c.spans, spans...)
	c.mu.Unlock()
}

func (c *Collector) tell() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// Spans returns the spans received so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Requests returns the requests that have come so far, without their bodies.
func (c *Collector) Requests() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Await waits until ok accepts the received spans, for a minute at most. One at a time may
// wait.
func (c *Collector) Await(tb testing.TB, what string, ok func([]Span) bool) []Span {
	tb.Helper()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		spans := c.Spans()
		if ok(spans) {
			return spans
		}
		select {
		case <-c.arrived:
		case <-late.C:
			tb.Fatalf("waiting for %s: %d spans in %d requests came", what, len(spans), len(c.Requests()))
		}
	}
}

// Decode reads the spans of an export, in any of OTLP/HTTP's encodings.
func Decode(r *http.Request) ([]Span, error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, fmt.Errorf("unpack export: %w", err)
		}
		body = unpacked
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	var export collector.ExportTraceServiceRequest
	if r.Header.Get("Content-Type") == "application/json" {
		// OTLP's JSON has ids in hexadecimal where protobuf's has base64: they
		// are misread alike, and only compared.
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, &export)
	} else {
		err = proto.Unmarshal(data, &export)
	}
	if err != nil {
		return nil, fmt.Errorf("decode export: %w", err)
	}
	return Flatten(&export), nil
}

// Flatten lists the spans of an export.
func Flatten(export *collector.ExportTraceServiceRequest) []Span {
	var list []Span
	for _, rs := range export.GetResourceSpans() {
		resource := values(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				list = append(list, Span{
					Name: s.GetName(), Kind: strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")),
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					State: s.GetTraceState(), Failed: s.GetStatus().GetCode() == wire.Status_STATUS_CODE_ERROR,
					Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
					Attributes: values(s.GetAttributes()), Resource: resource, Instrumenting: strings.TrimSpace(ss.GetScope().GetName() + " " + ss.GetScope().GetVersion()),
				})
			}
		}
	}
	return list
}

func values(pairs []*common.KeyValue) map[string]string {
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		switch v := p.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			m[p.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			m[p.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			m[p.GetKey()] = p.GetValue().String()
		}
	}
	return m
}
