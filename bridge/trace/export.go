package trace

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"plaspy-bridge/auth/redact"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	api "go.opentelemetry.io/otel/trace"
)

// Options describe this process. OpenTelemetry's exporters and SDK read everything
// else from their own environment variables.
type Options struct {
	Version  string // service.version, and the version of the instrumentation scope
	Instance string // service.instance.id
}

// Endpoint returns the URL of the collector from the environment, which may contain
// a password. It is empty if there are to be no traces. OpenTelemetry's default, a
// collector on this machine, is not used: a bridge without one would log failures.
func Endpoint() string {
	off := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(os.Getenv("OTEL_TRACES_EXPORTER"), "none")
	if off {
		return ""
	}
	return variable("TRACES", "ENDPOINT")
}

// variable returns the value of an exporter's variable for one kind of signal, or else
// the value for all.
func variable(signal, name string) string {
	const prefix = "OTEL_EXPORTER_OTLP_"
	return cmp.Or(os.Getenv(prefix+signal+"_"+name), os.Getenv(prefix+name))
}

func overGRPC(signal string) bool { return strings.EqualFold(variable(signal, "PROTOCOL"), "grpc") }

// New makes a tracer that exports, or nil if [Endpoint] is empty. It connects to the
// collector when there is something to send. Its error wraps a [*FileError] if a
// certificate file is the cause. Metrics are registered if reg is not nil, even
// without an endpoint. End the tracer with [Tracer.Shutdown].
func New(ctx context.Context, o Options, log *slog.Logger, reg prometheus.Registerer) (*Tracer, error) {
	m := newMetrics(reg)
	if Endpoint() == "" {
		return nil, nil
	}
	attributes, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("start exporter: %w", err)
	}
	out := newOutlet(exporter, secrets(), log, m)
	p := sdk.NewTracerProvider(sdk.WithResource(attributes), sdk.WithSpanProcessor(out.queue()))
	return &Tracer{tracer: tracerOf(p, o.Version), provider: p, outlet: out}, nil
}

// prepare checks the certificate files, and returns the attributes of this process.
func prepare(ctx context.Context, o Options) (*resource.Resource, error) {
	if err := files(); err != nil {
		return nil, err
	}
	r, err := resource.New(ctx, resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithAttributes(semconv.ServiceName(scope), semconv.ServiceVersion(o.Version), semconv.ServiceInstanceID(o.Instance)),
		resource.WithTelemetrySDK(), resource.WithFromEnv()) // the later ones win
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	return r, nil
}

// tracerOf names the instrumentation scope of all spans.
func tracerOf(p api.TracerProvider, version string) api.Tracer {
	return p.Tracer(scope, api.WithInstrumentationVersion(version), api.WithSchemaURL(semconv.SchemaURL))
}

// newExporter makes the exporter for the protocol of the environment.
func newExporter(ctx context.Context) (*otlptrace.Exporter, error) {
	if overGRPC("TRACES") {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// secrets returns the texts that errors of the exporter must not show.
func secrets() *redact.Secrets {
	var list []string
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"} {
		headers, err := ParseHeaders(os.Getenv(name))
		if err != nil {
			list = append(list, os.Getenv(name))
		}
		for _, value := range headers {
			list = append(list, value, strings.TrimSpace(value)) // net/http trims it
		}
	}
	return redact.New(list...)
}

// FileError is a file of certificates or keys that cannot be used.
type FileError struct {
	Variable string // that names the file
	Err      error  // does not show the name, which may be a secret by mistake
}

// Error names the variable and the fault.
func (e *FileError) Error() string { return e.Variable + ": file cannot be used: " + e.Err.Error() }

// Unwrap returns the fault.
func (e *FileError) Unwrap() error { return e.Err }

// files returns an error for a certificate file that cannot be used. OpenTelemetry
// would log that and continue without the file.
func files() error {
	for _, kind := range []string{"TRACES_", "METRICS_", ""} {
		prefix := "OTEL_EXPORTER_OTLP_" + kind
		if name := os.Getenv(prefix + "CERTIFICATE"); name != "" {
			if err := authorities(name); err != nil {
				return &FileError{prefix + "CERTIFICATE", err}
			}
		}
		if name := os.Getenv(prefix + "CLIENT_CERTIFICATE"); name != "" {
			if err := pair(name, os.Getenv(prefix+"CLIENT_KEY")); err != nil {
				return &FileError{prefix + "CLIENT_CERTIFICATE", err}
			}
		}
	}
	return nil
}

// authorities returns an error unless a file has certificate authorities.
func authorities(name string) error {
	pem, err := os.ReadFile(name)
	if err != nil {
		return redact.FileError(err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("it has no certificate")
	}
	return nil
}

// pair returns an error unless two files are a certificate and its key.
func pair(cert, key string) error {
	_, err := tls.LoadX509KeyPair(cert, key)
	return redact.FileError(err)
}
