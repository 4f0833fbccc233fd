package config

import (
	"net/url"
	"os"
	"strings"

	"plaspy-bridge/bridge/trace"
)

// tracing checks those of OpenTelemetry's variables that the table cannot
// describe. OpenTelemetry itself would log a wrong one with its value. They are
// checked with tracing off too: otherwise a fault would be found on the day on
// which a trace is wanted.
func (k *checker) tracing() {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		k.collector(name, os.Getenv(name))
	}
	const pairs = "want name=value, comma separated, values percent-encoded"
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		_, err := trace.ParseHeaders(os.Getenv(name))
		k.unless(err == nil, name, "cannot be understood: %v; "+pairs, err)
	}
	_, err := trace.ParsePairs(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"))
	k.unless(err == nil, "OTEL_RESOURCE_ATTRIBUTES", "cannot be understood: %v; "+pairs, err)

	const cert, key = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"
	k.unless(os.Getenv(cert) == "" || os.Getenv(key) != "", cert, "is set without "+key+"; want both")
	k.unless(os.Getenv(key) == "" || os.Getenv(cert) != "", key, "is set without "+cert+"; want both")
}

// collector checks the URL of a collector, without quoting it.
func (k *checker) collector(variable, endpoint string) {
	if endpoint == "" {
		return
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		k.unless(false, variable, "is not a URL with http or https and a host; want one such as http://localhost:4318")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(u.Path, "@"):
		k.unless(false, variable, "has more than scheme, host and path; want it without ? and #")
	default:
		k.unless(validPort(u.Port(), u.Host), variable, "has a port that is none; want 1 to 65535")
	}
}
