package trace

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	api "go.opentelemetry.io/otel/trace"
)

// system stands for NATS in attributes; the semantic conventions have no name for it.
var system = semconv.MessagingSystemKey.String("nats")

// rpcSystem stands for NATS micro services, for which the conventions have no name.
var rpcSystem = semconv.RPCSystemNameKey.String("nats_micro")

// Message describes a NATS message for its span.
type Message struct {
	Subject  string
	Template string // the subject with names in place of the variable parts
	ID       string // empty if it is not known yet
	Bytes    int    // of the body; 0 means not known
}

// attributes returns the attributes of a message, with room for more.
func (m *Message) attributes(operation string, kind attribute.KeyValue) []attribute.KeyValue {
	list := make([]attribute.KeyValue, 0, 8)
	list = append(list, system, semconv.MessagingOperationName(operation), kind,
		semconv.MessagingDestinationName(m.Subject), semconv.MessagingDestinationTemplate(m.Template))
	if m.ID != "" {
		list = append(list, semconv.MessagingMessageID(m.ID))
	}
	if m.Bytes > 0 {
		list = append(list, semconv.MessagingMessageBodySize(m.Bytes))
	}
	return list
}

// broker holds the options of spans of messages to and from a server. They are made
// once for each connection, to save allocations for each span.
type broker struct{ producer, consumer, settler []api.SpanStartOption }

// Connected sets the NATS server of later spans: its URL, and the number that it gave
// to the connection. It is safe for concurrent use.
func (t *Tracer) Connected(server string, number uint64) {
	if t == nil {
		return
	}
	list := []attribute.KeyValue{semconv.MessagingClientID(strconv.FormatUint(number, 10))}
	if u, err := url.Parse(server); err == nil && u.Hostname() != "" {
		list = append(list, semconv.ServerAddress(u.Hostname()))
		if n, err := strconv.Atoi(u.Port()); err == nil {
			list = append(list, semconv.ServerPort(n))
		}
	}
	with := api.WithAttributes(list...)
	t.broker.Store(&broker{append([]api.SpanStartOption{with}, producer...), append([]api.SpanStartOption{with}, consumer...), append([]api.SpanStartOption{with}, client...)})
}

// kinds returns the options of spans of messages.
func (t *Tracer) kinds() broker {
	if b := t.broker.Load(); b != nil {
		return *b
	}
	return broker{producer, consumer, client}
}

// Headers are the headers of a message that is about to be published.
type Headers interface{ SetHeader(name, value string) }

// Publish begins the span of a message to a subject of that template, and adds its
// context to the message.
func (t *Tracer) Publish(ctx context.Context, template string, h Headers) Span {
	if t == nil {
		return Span{}
	}
	_, s := t.start(ctx, "publish "+template, t.kinds().producer)
	s.inject(h.SetHeader)
	return s
}

// EndPublish ends the span of a message with its sequence in the stream, or 0 if it
// is not known to be stored, and the failure.
func (s Span) EndPublish(m *Message, seq uint64, failure string) {
	if !s.recording() {
		return
	}
	list := m.attributes("publish", semconv.MessagingOperationTypeSend)
	if seq != 0 {
		list = append(list, keySequence.Int64(int64(seq)))
	}
	s.end(failure, list...)
}

// Process begins the span of a received message, as a child of the span in its
// headers, if any. ctx has no span.
func (t *Tracer) Process(ctx context.Context, header map[string][]string, m Message) Span {
	if t == nil {
		return Span{}
	}
	_, s := t.start(extract(ctx, header), "process "+m.Template, t.kinds().consumer)
	if s.recording() {
		s.span.SetAttributes(m.attributes("process", semconv.MessagingOperationTypeProcess)...)
	}
	return s
}

// Settle begins the span of the removal of a message from its stream, as a child of
// the span that processed it.
func (t *Tracer) Settle(processed Span, m Message) Span {
	if t == nil || !processed.recording() {
		return Span{}
	}
	_, s := t.start(api.ContextWithSpan(context.Background(), processed.span), "settle "+m.Template, t.kinds().settler)
	if s.recording() {
		s.span.SetAttributes(m.attributes("settle", semconv.MessagingOperationTypeSettle)...)
	}
	return s
}

// Query begins the span of a request over NATS, as a child of the span in its
// headers, if any. ctx has no span; the returned context has the new one.
func (t *Tracer) Query(ctx context.Context, header map[string][]string, m Message) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, s := t.start(extract(ctx, header), "query "+m.Template, server)
	if s.recording() {
		// The last token names the method of the service that the others name.
		method := strings.TrimSuffix(m.Template, ".{device}")
		if i := strings.LastIndexByte(method, '.'); i >= 0 {
			method = method[:i] + "/" + method[i+1:]
		}
		s.span.SetAttributes(append(m.attributes("query", semconv.MessagingOperationTypeProcess), rpcSystem, semconv.RPCMethod(method))...)
	}
	return ctx, s
}
