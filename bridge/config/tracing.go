package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"plaspy-bridge/bridge/trace"
)

// Endpoint is the URL of a collector of traces. It shows itself with user and
// password masked, like [Servers].
type Endpoint string

// Reveal returns the URL as it was given, credentials included.
func (e Endpoint) Reveal() string { return string(e) }

// String returns the URL with what comes before an @ masked.
func (e Endpoint) String() string {
	if e == "" {
		return ""
	}
	return maskURL(string(e))
}

// GoString masks %#v.
func (e Endpoint) GoString() string { return fmt.Sprintf("%q", e.String()) }

// Format masks every verb.
func (e Endpoint) Format(f fmt.State, verb rune) { format(f, verb, e) }

// MarshalText masks encodings.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// LogValue masks the URL as a log attribute.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

// normalizeTracing brings the words that OpenTelemetry takes in any case to one.
func (c *Config) normalizeTracing() {
	for _, word := range []*string{&c.TracesExporter, &c.OTLPProtocol, &c.OTLPTracesProtocol, &c.OTLPCompression, &c.TracesSampler} {
		*word = strings.ToLower(strings.TrimSpace(*word))
	}
	c.TracesSamplerArg = strings.TrimSpace(c.TracesSamplerArg)
}

// tracing checks what the tags cannot say. What is wrong is wrong with tracing
// off, too: it would be found on the day on which somebody wants a trace.
func (k *checker) tracing(c Config) {
	k.collector("OTEL_EXPORTER_OTLP_ENDPOINT", c.OTLPEndpoint)
	k.collector("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.OTLPTracesEndpoint)
	protocols := []string{"", trace.ProtocolHTTP, trace.ProtocolJSON, trace.ProtocolGRPC}
	k.unless(slices.Contains(protocols, c.OTLPTracesProtocol), "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
		"is another word; want %s", strings.Join(protocols[1:], " or "))
	for name, headers := range map[string]Secret{"OTEL_EXPORTER_OTLP_HEADERS": c.OTLPHeaders, "OTEL_EXPORTER_OTLP_TRACES_HEADERS": c.OTLPTracesHeaders} {
		_, err := trace.ParseHeaders(headers.Reveal())
		k.unless(err == nil, name, "cannot be understood: %v; want name=value, comma separated, values percent-encoded", err)
	}
	_, err := trace.ParsePairs(c.ResourceAttributes)
	k.unless(err == nil, "OTEL_RESOURCE_ATTRIBUTES", "cannot be understood: %v; want name=value, comma separated, values percent-encoded", err)
	k.unless(c.OTLPCert == "" || c.OTLPKey != "", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "is set without OTEL_EXPORTER_OTLP_CLIENT_KEY; want both")
	k.unless(c.OTLPKey == "" || c.OTLPCert != "", "OTEL_EXPORTER_OTLP_CLIENT_KEY", "is set without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE; want both")
	ratio, err := c.ratio()
	k.unless(err == nil && ratio >= 0 && ratio <= 1, "OTEL_TRACES_SAMPLER_ARG", "is not a part; want a number, 0 to 1")
}

// collector checks a URL to send traces to, without quoting it.
func (k *checker) collector(variable string, e Endpoint) {
	if e == "" {
		return
	}
	u, err := url.Parse(e.Reveal())
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		k.unless(false, variable, "is not a URL with http or https and a host; want one such as http://localhost:4318")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(u.Path, "@"):
		k.unless(false, variable, "has more than scheme, user, host and path; want it without ? and #, with special characters in a password percent-encoded")
	default:
		k.unless(validPort(u.Port(), u.Host), variable, "has a port that is none; want 1 to 65535")
	}
}

func (c Config) ratio() (float64, error) {
	if c.TracesSamplerArg == "" {
		return 1, nil
	}
	return strconv.ParseFloat(c.TracesSamplerArg, 64)
}

// traceOptions say where traces go, which, and what they say of this process.
// Without an endpoint among them there are none.
func (c Config) TraceOptions(version string) trace.Options {
	ratio, err := c.ratio()
	if err != nil { // a Config that Validate has not seen
		ratio = 1
	}
	o := trace.Options{
		Protocol: cmp.Or(c.OTLPTracesProtocol, c.OTLPProtocol), Headers: cmp.Or(c.OTLPTracesHeaders, c.OTLPHeaders).Reveal(),
		CA: c.OTLPCA, Cert: c.OTLPCert, Key: c.OTLPKey, Compress: c.OTLPCompression == "gzip",
		Timeout: time.Duration(c.OTLPTimeout) * time.Millisecond, Sampler: c.TracesSampler, Ratio: ratio,
		Service: c.ServiceName, Version: version, Instance: c.ReplicaID, Attributes: c.ResourceAttributes,
	}
	switch {
	case c.TracingDisabled || c.TracesExporter == "none":
	case c.OTLPTracesEndpoint != "":
		o.Endpoint = c.OTLPTracesEndpoint.Reveal()
	case c.OTLPEndpoint != "":
		o.Endpoint = strings.TrimRight(c.OTLPEndpoint.Reveal(), "/") + "/v1/traces"
	}
	return o
}
