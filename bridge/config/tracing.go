package config

import (
	"net/url"
	"os"
	"strings"

	"plaspy-bridge/bridge/trace"
)

// tracing checks the OpenTelemetry variables that the table cannot describe.
// OpenTelemetry itself would log the value of a wrong one. They are checked even if
// tracing is off, so that a fault does not show up on the day when traces are needed.
func (k *checker) tracing() {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		k.collector(name, os.Getenv(name))
	}
	const pairs = "expected name=value, comma separated, values percent-encoded"
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		_, err := trace.ParseHeaders(os.Getenv(name))
		k.unless(err == nil, name, "cannot be parsed: %v; "+pairs, err)
	}
	_, err := trace.ParsePairs(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"))
	k.unless(err == nil, "OTEL_RESOURCE_ATTRIBUTES", "cannot be parsed: %v; "+pairs, err)

	const cert, key = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"
	k.unless(os.Getenv(cert) == "" || os.Getenv(key) != "", cert, "is set without "+key+"; set both")
	k.unless(os.Getenv(key) == "" || os.Getenv(cert) != "", key, "is set without "+cert+"; set both")
}

// collector checks the URL of a collector, without quoting it.
func (k *checker) collector(variable, endpoint string) {
	if endpoint == "" {
		return
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		k.unless(false, variable, "is not a URL with http or https and a host; expected one such as http://localhost:4318")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(u.Path, "@"):
		k.unless(false, variable, "has more than scheme, host and path; remove ? and # and all behind them")
	default:
		k.unless(validPort(u.Port(), u.Host), variable, "has an invalid port; expected 1 to 65535")
	}
}
