// Command traced reads locations and goes on with the trace that each one's poll
// began, so that a tracing tool shows the poll, the publish and what became of
// the event here in one picture. It wants NATS_URL, and NATS_USER and
// NATS_PASSWORD where the server does, and OTEL_EXPORTER_OTLP_ENDPOINT, as the
// bridge does. -n ends it after so many.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	n := flag.Int("n", 0, "end after so many; 0: never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *n); err != nil {
		log.Fatal(err)
	}
}

// carrier is a message's headers. NATS tells upper case from lower, other than
// HTTP, whose carrier would look for a Traceparent in vain.
type carrier nats.Header

func (c carrier) Get(key string) string { return nats.Header(c).Get(key) }
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }
func (c carrier) Keys() []string {
	var keys []string
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

func run(ctx context.Context, n int) (err error) {
	exporter, err := otlptracehttp.New(ctx) // takes all OTEL_EXPORTER_OTLP_* from the environment
	if err != nil {
		return err
	}
	about, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	defer func() { err = errors.Join(err, provider.Shutdown(context.WithoutCancel(ctx))) }()
	tracer := provider.Tracer("plaspy-bridge/examples/traced")

	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")), nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	events, err := nc.SubscribeSync("plaspy.location.*")
	if err != nil {
		return err
	}
	for done := 0; n == 0 || done < n; done++ {
		msg, err := events.NextMsgWithContext(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		// Without a traceparent, or with the bridge's tracing off, a trace of its own.
		begun := propagation.TraceContext{}.Extract(ctx, carrier(msg.Header))
		_, span := tracer.Start(begun, "process "+msg.Subject, trace.WithSpanKind(trace.SpanKindConsumer))
		fmt.Printf("%s  %s  %s\n", span.SpanContext().TraceID(), msg.Subject, msg.Data)
		span.End()
	}
	return nil
}
