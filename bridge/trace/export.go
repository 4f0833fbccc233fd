package trace

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/grpc/credentials"
)

// defaultTimeout is OpenTelemetry's for one export.
const defaultTimeout = 10 * time.Second

// New makes a tracer that exports, nil where o has no endpoint. It reaches the
// collector only when there is something to send. Its error wraps [ErrFile] where
// a file is to blame. Metrics are registered where
// reg is not nil, without an endpoint too. [Tracer.Shutdown] ends it.
func New(ctx context.Context, o Options, log *slog.Logger, reg prometheus.Registerer) (*Tracer, error) {
	m := newMetrics(reg)
	if o.Endpoint == "" {
		return nil, nil
	}
	sampler, err := o.sampler()
	if err != nil {
		return nil, err
	}
	attributes, err := o.resource()
	if err != nil {
		return nil, err
	}
	e, secrets, err := o.exporter()
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("start exporter: %w", err)
	}
	out := newOutlet(exporter, secrets, log, m)
	p := sdk.NewTracerProvider(sdk.WithSampler(sampler), sdk.WithResource(attributes), sdk.WithSpanProcessor(out.queue()))
	return &Tracer{tracer: p.Tracer(scope), provider: p, outlet: out}, nil
}

// resource is what all spans say of this process. What the operator says goes
// before what the bridge knows, and the service's name in a variable of its own
// before one among the attributes.
func (o Options) resource() (*resource.Resource, error) {
	pairs, err := ParsePairs(o.Attributes)
	if err != nil {
		return nil, fmt.Errorf("resource attributes: %w", err)
	}
	all := map[attribute.Key]string{
		semconv.ServiceNameKey: scope, semconv.ServiceVersionKey: o.Version, semconv.ServiceInstanceIDKey: o.Instance,
		semconv.TelemetrySDKNameKey: "opentelemetry", semconv.TelemetrySDKLanguageKey: "go",
	}
	for _, p := range pairs {
		all[attribute.Key(p.Name)] = p.Value
	}
	if o.Service != "" && o.Service != scope {
		all[semconv.ServiceNameKey] = o.Service
	}
	list := make([]attribute.KeyValue, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if all[k] != "" {
			list = append(list, k.String(all[k]))
		}
	}
	return resource.NewWithAttributes(semconv.SchemaURL, list...), nil
}

// exporter makes the client of the collector, and lists the texts that its errors
// must not show. Everything is said here: what is left out the library would take
// from the environment.
func (o Options) exporter() (otlptrace.Client, []string, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" {
		return nil, nil, errors.New("endpoint is no URL") // whose text may have a password
	}
	headers, err := ParseHeaders(o.Headers)
	if err != nil {
		return nil, nil, fmt.Errorf("headers: %w", err)
	}
	secrets := slices.Collect(maps.Values(headers))
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, u.User.Username(), password)
		if !slices.ContainsFunc(slices.Collect(maps.Keys(headers)), func(k string) bool { return strings.EqualFold(k, "Authorization") }) {
			headers["authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
			secrets = append(secrets, headers["authorization"])
		}
		u.User = nil
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	secure, err := o.tls()
	if err != nil {
		return nil, nil, err
	}
	if o.Protocol == ProtocolGRPC {
		return o.grpc(u, headers, secure), secrets, nil
	}
	return o.http(u, headers, secure), secrets, nil
}

func (o Options) grpc(u *url.URL, headers map[string]string, secure *tls.Config) otlptrace.Client {
	compressor := ""
	if o.Compress {
		compressor = "gzip"
	}
	security := otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secure))
	if u.Scheme == "http" {
		security = otlptracegrpc.WithInsecure()
	}
	return otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(u.Host), security, otlptracegrpc.WithHeaders(headers),
		otlptracegrpc.WithTimeout(o.Timeout), otlptracegrpc.WithCompressor(compressor))
}

func (o Options) http(u *url.URL, headers map[string]string, secure *tls.Config) otlptrace.Client {
	encoding, compression := otlptracehttp.EncodingProtobuf, otlptracehttp.NoCompression
	if o.Protocol == ProtocolJSON {
		encoding = otlptracehttp.EncodingJSON
	}
	if o.Compress {
		compression = otlptracehttp.GzipCompression
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: o.Timeout}).DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig: secure, TLSHandshakeTimeout: o.Timeout, MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second,
	}
	return ending{otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithTLSClientConfig(nil), // it is the transport's; with plain http, the client would refuse the environment's
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: o.Timeout}),
		otlptracehttp.WithEncoding(encoding), otlptracehttp.WithCompression(compression), otlptracehttp.WithTimeout(o.Timeout)), transport}
}

// ending is a client that closes its connections at its end.
type ending struct {
	otlptrace.Client
	transport *http.Transport
}

// Stop ends the client.
func (e ending) Stop(ctx context.Context) error {
	defer e.transport.CloseIdleConnections()
	return e.Client.Stop(ctx)
}

// ErrFile tells that a file of certificates or keys cannot be used.
var ErrFile = errors.New("file cannot be used")

func (o Options) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w: %w", ErrFile, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authorities: %w: it has none", ErrFile)
		}
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w: %w", ErrFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
