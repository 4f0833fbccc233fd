package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write deploy/env.example anew")

// environment sets the bridge's own variables to those of env, and removes all others of them
// from the test's environment.
func environment(t *testing.T, env map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "BRIDGE_") || strings.HasPrefix(name, "PLASPY_") || strings.HasPrefix(name, "NATS_") || strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "") // so that it comes back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// minimal returns the smallest set of variables that a bridge starts with, plus extra ones.
func minimal(more ...string) map[string]string {
	env := map[string]string{"PLASPY_USERNAME": "operator", "PLASPY_API_KEY": "k3y"}
	for _, entry := range more {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// file writes a file of the test's own and returns its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadDefaults(t *testing.T) {
	environment(t, minimal())
	c, warnings, err := config.Load()
	if err != nil || len(warnings) != 0 {
		t.Fatalf("Load: %v, %v", warnings, err)
	}
	// Spelt out here, not read from the tags: these are promised to operators.
	got := map[string]string{}
	for _, s := range c.Settings(err) {
		if s.Value != "" {
			got[s.Name] = s.Value
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if id := got["BRIDGE_REPLICA_ID"]; !strings.HasSuffix(id, fmt.Sprintf("-%d", os.Getpid())) || !strings.Contains(id, strings.Split(host, ".")[0]) {
		t.Errorf("BRIDGE_REPLICA_ID = %q, want host name and process id", id)
	}
	delete(got, "BRIDGE_REPLICA_ID")
	want := map[string]string{
		"PLASPY_BASE_URL": "https://api.plaspy.com", "PLASPY_ALLOW_HTTP": "false", "PLASPY_USERNAME": "operator", "PLASPY_API_KEY": "[redacted]",
		"PLASPY_TIMEOUT": "10s", "PLASPY_RATE_LIMIT": "600", "PLASPY_DAILY_RESULTS": "0", "PLASPY_DAILY_USAGE": "0",
		"BRIDGE_DATA_DIR": "./data", "BRIDGE_EMBEDDED_ADDR": "127.0.0.1:4222", "BRIDGE_PREFIX": "plaspy", "BRIDGE_STREAM_REPLICAS": "1",
		"BRIDGE_RETENTION": "168h", "BRIDGE_EVENTS_MAX_BYTES": "0", "BRIDGE_WORKERS": "16", "BRIDGE_POLL_INTERVAL": "1m", "BRIDGE_SCHEDULE": "adaptive", "BRIDGE_TRIP_START_WEIGHT": "1",
		"BRIDGE_DEVICES_REFRESH": "5m", "BRIDGE_IGNORE_FIELDS": "inactiveSeconds", "BRIDGE_SILENT_AFTER": "0s", "BRIDGE_BACKFILL": "false",
		"BRIDGE_BACKFILL_AFTER": "1s", "BRIDGE_BACKFILL_MAX": "24h", "BRIDGE_ALERT_HISTORY": "false", "BRIDGE_EVENT_GROUPS": "false", "BRIDGE_INBOUND": "true", "BRIDGE_QUERY": "true", "NATS_INBOX_PREFIX": "_INBOX", "NATS_TLS_FIRST": "false", "BRIDGE_INBOUND_WORKERS": "16",
		"BRIDGE_INBOUND_MAX_AGE": "24h", "BRIDGE_BACKOFF_INITIAL": "500ms", "BRIDGE_BACKOFF_MAX": "1m", "BRIDGE_HTTP_ADDR": "127.0.0.1:8080",
		"BRIDGE_PPROF": "false", "BRIDGE_LOG_LEVEL": "info", "BRIDGE_LOG_FORMAT": "auto", "BRIDGE_SHUTDOWN_TIMEOUT": "20s",
		"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_EXPORTER_OTLP_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_TIMEOUT": "10000",
		"OTEL_METRICS_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "60000", "OTEL_SERVICE_NAME": "plaspy-bridge",
		"OTEL_TRACES_SAMPLER": "parentbased_always_on",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("defaults (-got +want):\n%s", diff)
	}
	if !c.Embedded() {
		t.Error("no NATS_URL, and not the embedded server")
	}
}

func TestLoadReads(t *testing.T) {
	environment(t, minimal("PLASPY_BASE_URL=https://example.com/api//", "BRIDGE_WORKERS=1", "BRIDGE_POLL_INTERVAL=2m30s",
		"BRIDGE_DEVICES= a , ,b*", "BRIDGE_IGNORE_FIELDS=,", "BRIDGE_LOG_LEVEL=WARN", "BRIDGE_HTTP_ADDR=", "BRIDGE_PREFIX=",
		"BRIDGE_INBOUND=0", "NATS_URL=nats://u:p@a:4222, b", "BRIDGE_TRIP_START_WEIGHT=2.5", "PLASPY_API_KEY=k3y\n", "BRIDGE_STREAM_REPLICAS=3"))
	c, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	got := []any{
		c.BaseURL.String(), c.Workers, c.PollInterval, c.Devices, len(c.IgnoreFields), c.LogLevel, c.HTTPAddr, c.Prefix,
		c.Inbound, c.NATSURL.Reveal(), c.TripStartWeight, c.APIKey.Reveal(), c.StreamReplicas, c.Embedded(),
	}
	want := []any{
		"https://example.com/api", 1, 150 * time.Second, []string{"a", "b*"}, 0, slog.LevelWarn, "", "plaspy",
		false, "nats://u:p@a:4222,b", 2.5, "k3y", 3, false,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("read (-got +want):\n%s", diff)
	}
}

func TestLoadExcept(t *testing.T) {
	environment(t, map[string]string{"PLASPY_TIMEOUT": "soon", "BRIDGE_PREFIX": "fleet"})
	c, _, err := config.Load("PLASPY_")
	if err != nil || c.Prefix != "fleet" || c.Timeout != 10*time.Second {
		t.Errorf("Load without the API: %v, prefix %q, timeout %v", err, c.Prefix, c.Timeout)
	}
	if err := c.Validate(); err == nil {
		t.Error("Validate of a Config without user name: no error")
	}
	c.Username, c.APIKey = "operator", "k3y"
	if err := c.Validate(); err != nil {
		t.Errorf("Validate of a completed Config: %v", err)
	}
}

func TestLoadAccepts(t *testing.T) {
	present := file(t, "present", "x")
	for name, env := range map[string]map[string]string{
		"loopback http":          minimal("PLASPY_BASE_URL=http://127.0.0.1:8090"),
		"loopback http, IPv6":    minimal("PLASPY_BASE_URL=http://[::1]:8090/prefix"),
		"loopback http, by name": minimal("PLASPY_BASE_URL=http://LOCALHOST:8090"),
		"http allowed":           minimal("PLASPY_BASE_URL=http://example.com", "PLASPY_ALLOW_HTTP=true"),
		"key file":               minimal("PLASPY_API_KEY=", "PLASPY_API_KEY_FILE="+present),
		"servers":                minimal("NATS_URL=a,nats://b:4222,tls://[::1]:1"),
		"websockets":             minimal("NATS_URL=wss://a,ws://b:80/path"),
		"user as token":          minimal("NATS_USER=s3cret"),
		"user and password":      minimal("NATS_USER=u", "NATS_PASSWORD=p"),
		"client certificate":     minimal("NATS_CERT="+present, "NATS_KEY="+present, "NATS_CREDS="+present),
		"cluster of one's own":   minimal("BRIDGE_EMBEDDED_CONFIG="+present, "BRIDGE_STREAM_REPLICAS=3"),
		"no HTTP":                minimal("BRIDGE_HTTP_ADDR="),
		"any port":               minimal("BRIDGE_HTTP_ADDR=localhost:0"),
		"bounds":                 minimal("BRIDGE_WORKERS=10000", "BRIDGE_POLL_INTERVAL=100ms", "BRIDGE_DEVICES_REFRESH=1s", "PLASPY_RATE_LIMIT=0"),
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, env)
			if _, _, err := config.Load(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoadWarnings(t *testing.T) {
	environment(t, minimal("BRIDGE_WORKRES=s3cret", "PLASPY_KEY=s3cret", "BRIDGE_COLOUR_OF_THE_LIVE_VIEW=s3cret", "NATS_CRED=s3cret",
		"NATS_CONTEXT=s3cret", "BRIDGE_PORT_8080_TCP_ADDR=10.0.0.1", "PLASPY_BRIDGE_SERVICE_HOST=10.0.0.1", "BRIDGE_PORT=tcp://10.0.0.1:8080", "BRIDGE_HTTP_PORT=8080",
		"PLASPY_USERNAME='s3cret'", "NATS_URL=h", "BRIDGE_EMBEDDED_CONFIG="+file(t, "nats.conf", ""), "BRIDGE_GROUPS=a ", "BRIDGE_DATA_DIR=./data "))
	_, warnings, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.String())
	}
	want := []string{
		"BRIDGE_COLOUR_OF_THE_LIVE_VIEW is not a variable of the bridge",
		"BRIDGE_DATA_DIR begins or ends with white space, which is taken as part of the value",
		"BRIDGE_HTTP_PORT is not a variable of the bridge; did you mean BRIDGE_HTTP_ADDR?",
		"BRIDGE_WORKRES is not a variable of the bridge; did you mean BRIDGE_WORKERS?",
		"NATS_CRED is not a variable of the bridge; did you mean NATS_CREDS?",
		"PLASPY_KEY is not a variable of the bridge",
		"PLASPY_USERNAME is wrapped in quotes, which are taken as part of the value",
		"BRIDGE_EMBEDDED_CONFIG has no effect: NATS_URL names a server",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("warnings (-got +want):\n%s", diff)
	}
}

// TestListShareIsDoubted: a list that is read so often that polls starve is legal,
// and worth a warning.
func TestListShareIsDoubted(t *testing.T) {
	for _, tc := range []struct {
		env  []string
		want string // in the warning; empty: none
	}{
		{[]string{"BRIDGE_DEVICES_REFRESH=5m"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=1s", "PLASPY_RATE_LIMIT=60"}, "takes 100% of PLASPY_RATE_LIMIT"},
		{[]string{"BRIDGE_DEVICES_REFRESH=1s", "PLASPY_RATE_LIMIT=30"}, "takes 100% of PLASPY_RATE_LIMIT"},
		{[]string{"BRIDGE_DEVICES_REFRESH=2s", "PLASPY_RATE_LIMIT=60", "BRIDGE_GROUPS=north"}, "takes 100% of PLASPY_RATE_LIMIT"},
		{[]string{"BRIDGE_DEVICES_REFRESH=6s", "PLASPY_RATE_LIMIT=60", "BRIDGE_GROUPS=north"}, "takes 33% of PLASPY_RATE_LIMIT"},
		{[]string{"BRIDGE_DEVICES_REFRESH=6s", "PLASPY_RATE_LIMIT=60"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=1s", "PLASPY_RATE_LIMIT=600"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=1s", "PLASPY_RATE_LIMIT=0"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=3000h"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=2562047h"}, ""},
		{[]string{"BRIDGE_DEVICES_REFRESH=1s", "BRIDGE_POLL_INTERVAL=1h"}, "less than a thousandth of BRIDGE_POLL_INTERVAL"},
	} {
		t.Run(strings.Join(tc.env, " "), func(t *testing.T) {
			environment(t, minimal(tc.env...))
			_, warnings, err := config.Load()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(warnings); (tc.want == "") != (len(warnings) == 0) || !strings.Contains(got, tc.want) {
				t.Errorf("warnings %s, want %q", got, tc.want)
			}
		})
	}
}

// TestEmbeddedAddrIsDoubted: the configuration file of the embedded server has its address.
func TestEmbeddedAddrIsDoubted(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(conf, []byte("listen: 127.0.0.1:4222\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		env  []string
		want int // warnings
	}{
		{[]string{"BRIDGE_EMBEDDED_CONFIG=" + conf}, 0},
		{[]string{"BRIDGE_EMBEDDED_ADDR=127.0.0.1:4333"}, 0},
		{[]string{"BRIDGE_EMBEDDED_CONFIG=" + conf, "BRIDGE_EMBEDDED_ADDR=127.0.0.1:4333"}, 1},
	} {
		environment(t, minimal(tc.env...))
		if _, warnings, err := config.Load(); err != nil || len(warnings) != tc.want {
			t.Errorf("%v: warnings %v, want %d: %v", tc.env, warnings, tc.want, err)
		}
	}
}

// TestConfigShowsNoSecret prints a Config with a secret in every place that may
// hold one, in every way a program prints things.
func TestConfigShowsNoSecret(t *testing.T) {
	environment(t, minimal("PLASPY_API_KEY=s3cret", "NATS_URL=nats://u:s3cret@h:4222,nats://s3cret@h", "NATS_USER=s3cret", "NATS_PASSWORD=s3cret", "BRIDGE_HTTP_TOKEN=s3cret",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://u:s3cret@collector:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://s3cret@h/x",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=https://s3cret@h/y",
		"OTEL_EXPORTER_OTLP_HEADERS=a=s3cret", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=s3cret"))
	c, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", c)
	}
	fmt.Fprintln(&out, c.Settings(nil))
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("loaded", "config", c, "key", c.APIKey, "servers", c.NATSURL)
	slog.New(slog.NewTextHandler(&out, nil)).Info("loaded", "config", c, "key", c.APIKey, "servers", c.NATSURL)
	for _, spelling := range []string{"s3cret", fmt.Sprintf("%x", "s3cret"), "115 51 99"} {
		if strings.Contains(out.String(), spelling) {
			t.Errorf("%q shows in:\n%s", spelling, out.String())
		}
	}
	if !strings.Contains(out.String(), "nats://[redacted]@h:4222") {
		t.Error("the server's host does not show")
	}
	if !strings.Contains(out.String(), "https://[redacted]@collector:4318") {
		t.Error("the collector's host does not show")
	}
}

func TestSettingsShowProblemsNotValues(t *testing.T) {
	environment(t, minimal("NATS_CREDS=/s3cret", "PLASPY_BASE_URL=https://u:s3cret@h", "OTEL_EXPORTER_OTLP_ENDPOINT=collector/s3cret", "NATS_URL=nats://u:s3cret,x@h"))
	c, _, err := config.Load()
	shown := fmt.Sprint(c.Settings(err))
	if err == nil || strings.Contains(shown, "s3cret") || !strings.Contains(shown, "cannot be read") {
		t.Errorf("settings of a wrong configuration: %v\n%s", err, shown)
	}
}

// Every field has its line in the table, and every line of the bridge's own its
// field, so that a setting cannot be half there.
func TestTableAndFieldsAgree(t *testing.T) {
	fields := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Config]()) {
		fields[f.Tag.Get("envconfig")] = true
	}
	for _, v := range config.Variables() {
		if !fields[v.Name] && !strings.HasPrefix(v.Name, "OTEL_") {
			t.Errorf("%s has no field", v.Name)
		}
		delete(fields, v.Name)
	}
	if len(fields) > 0 {
		t.Errorf("%v are not in the table", fields)
	}
}

// Load leaves the environment as it found it: children and OpenTelemetry read it.
func TestLoadLeavesTheEnvironment(t *testing.T) {
	environment(t, minimal("PLASPY_TIMEOUT=soon", "BRIDGE_WORKERS=", "BRIDGE_PREFIX=fleet"))
	before := slices.Sorted(slices.Values(os.Environ()))
	_, _, err := config.Load()
	if diff := cmp.Diff(slices.Sorted(slices.Values(os.Environ())), before); diff != "" || err == nil {
		t.Errorf("%v\nenvironment (-got +want):\n%s", err, diff)
	}
}

func TestSettingsTable(t *testing.T) {
	var b strings.Builder
	if err := config.WriteSettings(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| `BRIDGE_WORKERS` | whole number | `16` | polls in flight at once (1 to 10000) |\n",
		"| `PLASPY_USERNAME` | text |  | user name of the account; required |\n",
		"| `BRIDGE_SCHEDULE` | adaptive or fixed | `adaptive` |",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in:\n%s", line, b.String())
		}
	}
	for _, v := range config.Variables() {
		if v.Name == "" || v.Meaning == "" || v.Section == "" || v.Type == "" || strings.HasSuffix(v.Meaning, ".") {
			t.Errorf("%+v is incomplete", v)
		}
	}
}

func TestEnvExample(t *testing.T) {
	const path = "../../deploy/env.example"
	var want bytes.Buffer
	if err := config.WriteEnvExample(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want.String()); diff != "" {
		t.Errorf("%s (-got +want; write it anew with go test ./bridge -run EnvExample -update):\n%s", path, diff)
	}
	// Reading it line by line, as systemd and docker do, gives a configuration
	// that lacks only the values that the operator has to choose.
	env := map[string]string{}
	for line := range strings.Lines(string(got)) {
		line = strings.TrimSuffix(line, "\n")
		assignment := strings.TrimPrefix(line, "#")
		if name, value, ok := strings.Cut(assignment, "="); ok && name == strings.ToUpper(name) && !strings.Contains(name, " ") {
			env[name] = value
		}
	}
	if len(env) != len(config.Variables()) {
		t.Errorf("%d variables, want %d", len(env), len(config.Variables()))
	}
	env["PLASPY_USERNAME"], env["PLASPY_API_KEY"] = "operator", "k3y"
	environment(t, env)
	if _, warnings, err := config.Load(); err != nil || len(warnings) > 0 {
		t.Errorf("Load returned %v, %v", warnings, err)
	}
}

// TestVariablesOfTheEmbeddedConfiguration: a variable that the configuration file
// of the embedded server refers to is not called unknown.
func TestVariablesOfTheEmbeddedConfiguration(t *testing.T) {
	conf := file(t, "nats.conf", "authorization { user: bridge, password: $BRIDGE_PASSWORD }")
	environment(t, minimal("BRIDGE_EMBEDDED_CONFIG="+conf, "BRIDGE_PASSWORD=s3cret", "BRIDGE_PASWORD=s3cret"))
	_, warnings, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].Variable != "BRIDGE_PASWORD" {
		t.Errorf("warnings %v, want one, about BRIDGE_PASWORD", warnings)
	}
}
