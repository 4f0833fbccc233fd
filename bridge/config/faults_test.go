package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"plaspy-bridge/bridge/config"

	"github.com/google/go-cmp/cmp"
)

// TestLoadFaults injects one fault at a time and checks that the error names it, states
// the valid values, and blames no other setting.
func TestLoadFaults(t *testing.T) {
	directory := t.TempDir()
	present := file(t, "present", "x")
	tests := []struct {
		name string
		env  map[string]string
		want string // variable and part of the problem, separated by a space
	}{
		{"no user name", map[string]string{"PLASPY_API_KEY": "k"}, "PLASPY_USERNAME is not set"},
		{"blank user name", minimal("PLASPY_USERNAME=  "), "PLASPY_USERNAME is not set"},
		{"no key", map[string]string{"PLASPY_USERNAME": "o"}, "PLASPY_API_KEY is not set; set it or"},
		{"empty key", minimal("PLASPY_API_KEY="), "PLASPY_API_KEY is not set"},
		{"key and key file", minimal("PLASPY_API_KEY_FILE=" + present), "PLASPY_API_KEY and PLASPY_API_KEY_FILE are both set"},
		{"key of two lines", minimal("PLASPY_API_KEY=a\nb"), "PLASPY_API_KEY is blank, or has line breaks"},
		{"key file missing", minimal("PLASPY_API_KEY=", "PLASPY_API_KEY_FILE=/nowhere/s3cret"), "PLASPY_API_KEY_FILE names a file that cannot be read: no such file"},
		{"key file a folder", minimal("PLASPY_API_KEY=", "PLASPY_API_KEY_FILE="+directory), "PLASPY_API_KEY_FILE names a file that cannot be read: not a regular file"},
		{"key file empty", minimal("PLASPY_API_KEY=", "PLASPY_API_KEY_FILE="+file(t, "key", "\n")), "PLASPY_API_KEY_FILE names a file without a usable key: empty"},
		{"base without scheme", minimal("PLASPY_BASE_URL=s3cret.example.com"), "PLASPY_BASE_URL is not a URL with a host"},
		{"base of another scheme", minimal("PLASPY_BASE_URL=ftp://s3cret"), "PLASPY_BASE_URL is not a URL with a host"},
		{"base unparseable", minimal("PLASPY_BASE_URL=https://s3cret%zz"), "PLASPY_BASE_URL cannot be parsed"},
		{"base without host", minimal("PLASPY_BASE_URL=https://:80"), "PLASPY_BASE_URL is not a URL with a host"},
		{"base plain http", minimal("PLASPY_BASE_URL=http://example.com"), "PLASPY_BASE_URL is plain http"},
		{"base plain http on a name that begins like loopback", minimal("PLASPY_BASE_URL=http://127.0.0.1.example.com"), "PLASPY_BASE_URL is plain http"},
		{"base with user", minimal("PLASPY_BASE_URL=https://u:s3cret@example.com"), "PLASPY_BASE_URL contains a user"},
		{"base with query", minimal("PLASPY_BASE_URL=https://example.com/?key=s3cret"), "PLASPY_BASE_URL has more than scheme"},
		{"base with fragment", minimal("PLASPY_BASE_URL=https://example.com/#s3cret"), "PLASPY_BASE_URL has more than scheme"},
		{"base with port too high", minimal("PLASPY_BASE_URL=https://example.com:70000"), "PLASPY_BASE_URL has an invalid port"},
		{"allow http not boolean", minimal("PLASPY_ALLOW_HTTP=s3cret"), "PLASPY_ALLOW_HTTP cannot be parsed; expected true or false"},
		{"timeout without unit", minimal("PLASPY_TIMEOUT=10"), "PLASPY_TIMEOUT cannot be parsed; expected a duration with its unit, such as 90s, 5m or 24h, 100ms to 10m"},
		{"timeout zero", minimal("PLASPY_TIMEOUT=0s"), "PLASPY_TIMEOUT is 0s; expected"},
		{"rate negative", minimal("PLASPY_RATE_LIMIT=-1"), "PLASPY_RATE_LIMIT is -1; expected a whole number, 0 to 1000000"},
		{"rate fractional", minimal("PLASPY_RATE_LIMIT=1.5"), "PLASPY_RATE_LIMIT cannot be parsed"},
		{"rate too long", minimal("PLASPY_RATE_LIMIT=99999999999999999999"), "PLASPY_RATE_LIMIT cannot be parsed"},
		{"daily negative", minimal("PLASPY_DAILY_RESULTS=-5"), "PLASPY_DAILY_RESULTS is -5"},
		{"daily usage negative", minimal("PLASPY_DAILY_USAGE=-1"), "PLASPY_DAILY_USAGE is -1"},
		{"nats scheme", minimal("NATS_URL=http://u:s3cret@h"), "NATS_URL has an entry (number 1) with another scheme"},
		{"nats unparseable", minimal("NATS_URL=nats://a,nats://u:s3cret%@h"), "NATS_URL has an entry (number 2) that is not a URL"},
		{"nats password with hash", minimal("NATS_URL=nats://u:s3cret#1@h"), "NATS_URL has an entry (number 1) that is not a URL"},
		{"nats password with slash", minimal("NATS_URL=nats://u:1/s3cret@h"), "NATS_URL has an entry (number 1) that is not just"},
		{"nats without host", minimal("NATS_URL=nats://:4222"), "NATS_URL has an entry (number 1) that is not just"},
		{"nats port", minimal("NATS_URL=nats://h:0"), "NATS_URL has an entry (number 1) with an invalid port"},
		{"nats mixed", minimal("NATS_URL=nats://h,ws://h"), "NATS_URL mixes"},
		{"creds missing", minimal("NATS_CREDS=/nowhere/s3cret"), "NATS_CREDS names a file that cannot be read: no such file"},
		{"nkey missing", minimal("NATS_NKEY=/nowhere/s3cret"), "NATS_NKEY names a file that cannot be read"},
		{"ca a folder", minimal("NATS_CA=" + directory), "NATS_CA names a file that cannot be read: not a regular file"},
		{"creds and token", minimal("NATS_CREDS="+present, "NATS_TOKEN=s3cret"), "NATS_CREDS and NATS_TOKEN are different ways"},
		{"nkey and user", minimal("NATS_NKEY="+present, "NATS_USER=s3cret"), "NATS_NKEY and NATS_USER are different ways"},
		{"password alone", minimal("NATS_PASSWORD=s3cret"), "NATS_PASSWORD is set without NATS_USER"},
		{"cert alone", minimal("NATS_CERT=" + present), "NATS_CERT is set without NATS_KEY"},
		{"key alone", minimal("NATS_KEY=" + present), "NATS_KEY is set without NATS_CERT"},
		{"cert missing", minimal("NATS_CERT=/nowhere/s3cret", "NATS_KEY="+present), "NATS_CERT names a file that cannot be read"},
		{"nats key missing", minimal("NATS_KEY=/nowhere/s3cret", "NATS_CERT="+present), "NATS_KEY names a file that cannot be read"},
		{"embedded address", minimal("BRIDGE_EMBEDDED_ADDR=s3cret"), "BRIDGE_EMBEDDED_ADDR is not an address"},
		{"embedded configuration missing", minimal("BRIDGE_EMBEDDED_CONFIG=/nowhere/s3cret"), "BRIDGE_EMBEDDED_CONFIG names a file that cannot be read"},
		{"prefix of two tokens", minimal("BRIDGE_PREFIX=s3.cret"), "BRIDGE_PREFIX is not one token"},
		{"prefix a wildcard", minimal("BRIDGE_PREFIX=>"), "BRIDGE_PREFIX is not one token"},
		{"query credentials missing", minimal("NATS_QUERY_CREDS=/nowhere/s3cret"), "NATS_QUERY_CREDS names a file that cannot be read"},
		{"query nkey missing", minimal("NATS_QUERY_NKEY=/nowhere/s3cret"), "NATS_QUERY_NKEY names a file that cannot be read"},
		{"query nkey and user", minimal("NATS_QUERY_NKEY="+present, "NATS_QUERY_USER=s3cret"), "NATS_QUERY_NKEY and NATS_QUERY_USER are different ways"},
		{"query password alone", minimal("NATS_QUERY_PASSWORD=s3cret"), "NATS_QUERY_PASSWORD is set without NATS_QUERY_USER"},
		{"query a word", minimal("BRIDGE_QUERY=s3cret"), "BRIDGE_QUERY cannot be parsed"},
		{"TLS first a word", minimal("NATS_TLS_FIRST=s3cret"), "NATS_TLS_FIRST cannot be parsed"},
		{"inbox prefix a wildcard", minimal("NATS_INBOX_PREFIX=_INBOX.>"), "NATS_INBOX_PREFIX is not the first part of a subject"},
		{"inbox prefix ends with a dot", minimal("NATS_INBOX_PREFIX=_INBOX."), "NATS_INBOX_PREFIX is not the first part of a subject"},
		{"inbox prefix of the server", minimal("NATS_INBOX_PREFIX=$JS"), "NATS_INBOX_PREFIX is not the first part of a subject"},
		{"inbox prefix of the bridge", minimal("NATS_INBOX_PREFIX=plaspy.x"), "NATS_INBOX_PREFIX begins with BRIDGE_PREFIX"},
		{"domain with a dot", minimal("NATS_JS_DOMAIN=a.b"), "NATS_JS_DOMAIN is not one word"},
		{"prefix of replies", minimal("BRIDGE_PREFIX=_INBOX"), "BRIDGE_PREFIX is the prefix of NATS replies"},
		{"no stream replicas", minimal("NATS_URL=h", "BRIDGE_STREAM_REPLICAS=0"), "BRIDGE_STREAM_REPLICAS is 0; expected a whole number, 1 to 5"},
		{"too many stream replicas", minimal("NATS_URL=h", "BRIDGE_STREAM_REPLICAS=6"), "BRIDGE_STREAM_REPLICAS is 6"},
		{"stream replicas on the embedded server", minimal("BRIDGE_STREAM_REPLICAS=3"), "BRIDGE_STREAM_REPLICAS is 3; expected 1 with the embedded"},
		{"retention zero", minimal("BRIDGE_RETENTION=0s"), "BRIDGE_RETENTION is 0s; expected a duration with its unit, such as 90s, 5m or 24h, at least 1m"},
		{"few bytes of events", minimal("BRIDGE_EVENTS_MAX_BYTES=1000"), "BRIDGE_EVENTS_MAX_BYTES is 1000, which is too small"},
		{"negative bytes of events", minimal("BRIDGE_EVENTS_MAX_BYTES=-1"), "BRIDGE_EVENTS_MAX_BYTES is -1"},
		{"bytes of events with a unit", minimal("BRIDGE_EVENTS_MAX_BYTES=1GB"), "BRIDGE_EVENTS_MAX_BYTES cannot be parsed"},
		{"retention in days", minimal("BRIDGE_RETENTION=7d"), "BRIDGE_RETENTION cannot be parsed"},
		{"replica id with a space", minimal("BRIDGE_REPLICA_ID=a s3cret"), "BRIDGE_REPLICA_ID is not one word"},
		{"workers zero", minimal("BRIDGE_WORKERS=0"), "BRIDGE_WORKERS is 0; expected a whole number, 1 to 10000"},
		{"workers negative", minimal("BRIDGE_WORKERS=-3"), "BRIDGE_WORKERS is -3"},
		{"workers too many", minimal("BRIDGE_WORKERS=10001"), "BRIDGE_WORKERS is 10001"},
		{"workers octal", minimal("BRIDGE_WORKERS=010"), "BRIDGE_WORKERS has leading zeros"},
		{"workers a word", minimal("BRIDGE_WORKERS=s3cret"), "BRIDGE_WORKERS cannot be parsed"},
		{"poll interval too short", minimal("BRIDGE_POLL_INTERVAL=99ms"), "BRIDGE_POLL_INTERVAL is 99ms; expected"},
		{"schedule unknown", minimal("BRIDGE_SCHEDULE=s3cret"), "BRIDGE_SCHEDULE has an unknown value; expected adaptive or fixed"},
		{"weight too low", minimal("BRIDGE_TRIP_START_WEIGHT=0.5"), "BRIDGE_TRIP_START_WEIGHT is 0.5; expected a number, 1 to 64"},
		{"weight too high", minimal("BRIDGE_TRIP_START_WEIGHT=65"), "BRIDGE_TRIP_START_WEIGHT is 65"},
		{"weight no number", minimal("BRIDGE_TRIP_START_WEIGHT=NaN"), "BRIDGE_TRIP_START_WEIGHT is NaN"},
		{"glob open", minimal("BRIDGE_DEVICES=ok,[s3cret"), "BRIDGE_DEVICES has a wrong glob (number 2)"},
		{"glob of another dialect", minimal("BRIDGE_DEVICES=[!s3cret]*"), "BRIDGE_DEVICES has a wrong glob (number 1): write [^a]"},
		{"excluding glob open", minimal("BRIDGE_DEVICES_EXCLUDE=[s3cret"), "BRIDGE_DEVICES_EXCLUDE has a wrong glob (number 1)"},
		{"refresh too often", minimal("BRIDGE_DEVICES_REFRESH=999ms"), "BRIDGE_DEVICES_REFRESH is 999ms"},
		{"silent negative", minimal("BRIDGE_SILENT_AFTER=-1s"), "BRIDGE_SILENT_AFTER is -1s; expected a duration with its unit, such as 90s, 5m or 24h, not negative"},
		{"backfill a word", minimal("BRIDGE_BACKFILL=yes"), "BRIDGE_BACKFILL cannot be parsed; expected true or false"},
		{"backfill max short", minimal("BRIDGE_BACKFILL_MAX=59s"), "BRIDGE_BACKFILL_MAX is 59s"},
		{"backfill after negative", minimal("BRIDGE_BACKFILL_AFTER=-1s"), "BRIDGE_BACKFILL_AFTER is -1s"},
		{"alert history a word", minimal("BRIDGE_ALERT_HISTORY=s3cret"), "BRIDGE_ALERT_HISTORY cannot be parsed"},
		{"event groups a word", minimal("BRIDGE_EVENT_GROUPS=s3cret"), "BRIDGE_EVENT_GROUPS cannot be parsed"},
		{"inbound a word", minimal("BRIDGE_INBOUND=s3cret"), "BRIDGE_INBOUND cannot be parsed"},
		{"inbound workers zero", minimal("BRIDGE_INBOUND_WORKERS=0"), "BRIDGE_INBOUND_WORKERS is 0"},
		{"inbound age zero", minimal("BRIDGE_INBOUND_MAX_AGE=0s"), "BRIDGE_INBOUND_MAX_AGE is 0s"},
		{"first wait zero", minimal("BRIDGE_BACKOFF_INITIAL=0s"), "BRIDGE_BACKOFF_INITIAL is 0s"},
		{"longest wait below the first", minimal("BRIDGE_BACKOFF_MAX=100ms"), "BRIDGE_BACKOFF_MAX is 100ms; expected at least BRIDGE_BACKOFF_INITIAL, which is 500ms"},
		{"http address a port", minimal("BRIDGE_HTTP_ADDR=8080"), "BRIDGE_HTTP_ADDR is not an address"},
		{"http port a word", minimal("BRIDGE_HTTP_ADDR=:http"), "BRIDGE_HTTP_ADDR is not an address"},
		{"http port too high", minimal("BRIDGE_HTTP_ADDR=:65536"), "BRIDGE_HTTP_ADDR is not an address"},
		{"http address a URL", minimal("BRIDGE_HTTP_ADDR=http://h:80"), "BRIDGE_HTTP_ADDR is not an address"},
		{"http token with a space", minimal("BRIDGE_HTTP_TOKEN=a s3cret"), "BRIDGE_HTTP_TOKEN has a character"},
		{"pprof a word", minimal("BRIDGE_PPROF=s3cret"), "BRIDGE_PPROF cannot be parsed"},
		{"log level unknown", minimal("BRIDGE_LOG_LEVEL=s3cret"), "BRIDGE_LOG_LEVEL cannot be parsed; expected debug, info, warn or error"},
		{"log format unknown", minimal("BRIDGE_LOG_FORMAT=s3cret"), "BRIDGE_LOG_FORMAT has an unknown value; expected auto or text or json"},
		{"shutdown zero", minimal("BRIDGE_SHUTDOWN_TIMEOUT=0s"), "BRIDGE_SHUTDOWN_TIMEOUT is 0s"},
		{"tracing off, perhaps", minimal("OTEL_SDK_DISABLED=s3cret"), "OTEL_SDK_DISABLED cannot be parsed; expected true or false"},
		{"another exporter", minimal("OTEL_TRACES_EXPORTER=s3cret"), "OTEL_TRACES_EXPORTER has an unknown value; expected otlp or none"},
		{"collector without scheme", minimal("OTEL_EXPORTER_OTLP_ENDPOINT=s3cret:4317"), "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL with http or https"},
		{"collector without host", minimal("OTEL_EXPORTER_OTLP_ENDPOINT=http:///s3cret"), "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL with http or https and a host"},
		{"collector no URL", minimal("OTEL_EXPORTER_OTLP_ENDPOINT=http://u:s3cret%@h"), "OTEL_EXPORTER_OTLP_ENDPOINT cannot be parsed; expected a URL"},
		{"collector with query", minimal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://h/v1/traces?key=s3cret"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT has more than"},
		{"collector's port", minimal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://h:0"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT has an invalid port"},
		{"protocol", minimal("OTEL_EXPORTER_OTLP_PROTOCOL=s3cret"), "OTEL_EXPORTER_OTLP_PROTOCOL has an unknown value; expected http/protobuf or http/json or grpc"},
		{"protocol of traces", minimal("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=s3cret"), "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL has an unknown value; expected http/protobuf or"},
		{"headers", minimal("OTEL_EXPORTER_OTLP_HEADERS=a=b,s3cret"), "OTEL_EXPORTER_OTLP_HEADERS cannot be parsed: entry number 2 is not name=value"},
		{"header that is none", minimal("OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=s3cret%0D%0Ab: c"), "OTEL_EXPORTER_OTLP_TRACES_HEADERS cannot be parsed: entry number 1 is not a valid"},
		{"collector's authorities missing", minimal("OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere/s3cret"), "OTEL_EXPORTER_OTLP_CERTIFICATE names a file that cannot be read"},
		{"client certificate alone", minimal("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=" + present), "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is set without"},
		{"client key alone", minimal("OTEL_EXPORTER_OTLP_CLIENT_KEY=" + present), "OTEL_EXPORTER_OTLP_CLIENT_KEY is set without"},
		{"compression", minimal("OTEL_EXPORTER_OTLP_COMPRESSION=s3cret"), "OTEL_EXPORTER_OTLP_COMPRESSION has an unknown value; expected none or gzip"},
		{"collector of metrics", minimal("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=h:4318"), "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is not a URL"},
		{"protocol of metrics", minimal("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=s3cret"), "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL has an unknown value"},
		{"interval of metrics", minimal("OTEL_METRIC_EXPORT_INTERVAL=1m"), "OTEL_METRIC_EXPORT_INTERVAL"},
		{"export timeout", minimal("OTEL_EXPORTER_OTLP_TIMEOUT=0"), "OTEL_EXPORTER_OTLP_TIMEOUT is 0; expected a whole number, 1 to 600000"},
		{"resource attributes", minimal("OTEL_RESOURCE_ATTRIBUTES=a=%zz"), "OTEL_RESOURCE_ATTRIBUTES cannot be parsed: entry number 1"},
		{"sampler", minimal("OTEL_TRACES_SAMPLER=jaeger_remote"), "OTEL_TRACES_SAMPLER has an unknown value; expected parentbased_always_on or"},
		{"sampled part", minimal("OTEL_TRACES_SAMPLER_ARG=1.5"), "OTEL_TRACES_SAMPLER_ARG is 1.5; expected a number, 0 to 1"},
		{"sampled part no number", minimal("OTEL_TRACES_SAMPLER_ARG=NaN"), "OTEL_TRACES_SAMPLER_ARG is NaN"},
	}
	blamed := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, tt.env)
			_, _, err := config.Load()
			faults, ok := errors.AsType[config.Faults](err)
			if !ok || len(faults) != 1 {
				t.Fatalf("Load: %v, want one fault", err)
			}
			if got := faults[0].Variable + " " + faults[0].Problem; !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s...", got, tt.want)
			}
			if !strings.ContainsAny(faults[0].Problem, ";:") && !strings.Contains(faults[0].Problem, "file") {
				t.Errorf("%q does not name the valid values", faults[0].Problem)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes the value: %v", err)
			}
			blamed[faults[0].Variable] = true
		})
	}
	for _, v := range config.Variables() {
		anything := v.Type == "text" || v.Type == "secret" || v.Type == "list" || v.Type == "folder"
		if !blamed[v.Name] && !anything {
			t.Errorf("%s (%s) has no fault here", v.Name, v.Type)
		}
	}
}

func TestLoadTellsEveryFaultAtOnce(t *testing.T) {
	environment(t, map[string]string{
		"PLASPY_TIMEOUT": "soon", "BRIDGE_WORKERS": "0", "BRIDGE_BACKOFF_INITIAL": "x", "BRIDGE_PREFIX": "a.b", "NATS_PASSWORD": "s3cret",
		"NATS_URL": "nats://u:s3cret%@h",
	})
	_, _, err := config.Load()
	want := `the configuration is wrong:
  PLASPY_USERNAME is not set; expected the user name of the account
  PLASPY_API_KEY is not set; set it or PLASPY_API_KEY_FILE
  PLASPY_TIMEOUT cannot be parsed; expected a duration with its unit, such as 90s, 5m or 24h, 100ms to 10m
  NATS_URL has an entry (number 1) that is not a URL; expected nats://host:4222, with special characters in a user or password percent-encoded
  NATS_PASSWORD is set without NATS_USER; set both
  BRIDGE_PREFIX is not one token; expected at most 64 letters, digits, - and _
  BRIDGE_WORKERS is 0; expected a whole number, 1 to 10000
  BRIDGE_BACKOFF_INITIAL cannot be parsed; expected a duration with its unit, such as 90s, 5m or 24h, 10ms to 1h`
	if diff := cmp.Diff(fmt.Sprint(err), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}
