package config

// Names of types, as the settings table shows them. A variable of another type
// allows the words that its type lists.
const (
	typeText     = "text"
	typeList     = "list"
	typeSecret   = "secret"
	typeFile     = "file"
	typeFolder   = "folder"
	typeAddress  = "address"
	typeURL      = "URL"
	typeURLs     = "list of URLs"
	typeInt      = "whole number"
	typeNumber   = "number"
	typeDuration = "duration"
	typeBool     = "true or false"
	typeLevel    = "debug, info, warn or error"
)

// Variable describes one environment variable.
type Variable struct {
	Name     string
	Type     string   // in words: duration, whole number, file, ...
	Default  string   // as one would write it; empty means none
	Min, Max string   // bounds of a number or duration; empty means none
	OneOf    []string // the words allowed; nil means any
	Meaning  string   // one sentence without its full stop
	Section  string   // heading of the group it belongs to
	Required bool
	Secret   bool
	Empty    string // the meaning of set to nothing, if that is not the default

	field int // index of the field in Config; -1 means one of OpenTelemetry's own variables
}

// section is a group of the settings table.
type section struct {
	heading   string
	variables []Variable
}

// table describes every variable, in the order in which operators read about
// them. Defaults of the bridge's own variables are in the tags of [Config].
var table = []section{
	{"Plaspy API", []Variable{
		{Name: "PLASPY_BASE_URL", Type: typeURL,
			Meaning: "root of the REST API; plain http only for loopback, unless PLASPY_ALLOW_HTTP is true"},
		{Name: "PLASPY_ALLOW_HTTP", Type: typeBool,
			Meaning: "allow a PLASPY_BASE_URL with plain http to another machine, which shows the API key to the network"},
		{Name: "PLASPY_USERNAME", Type: typeText, Required: true, Meaning: "user name of the account"},
		{Name: "PLASPY_API_KEY", Type: typeSecret,
			Meaning: "the account's API key; exactly one of this and PLASPY_API_KEY_FILE"},
		{Name: "PLASPY_API_KEY_FILE", Type: typeFile,
			Meaning: "file with the API key, read again at every token request, so that a rotated key needs no restart"},
		{Name: "PLASPY_TIMEOUT", Type: typeDuration, Min: "100ms", Max: "10m",
			Meaning: "time limit of one request, including the body of its answer"},
		{Name: "PLASPY_RATE_LIMIT", Type: typeInt, Min: "0", Max: "1000000",
			Meaning: "requests per minute to all endpoints from all replicas together, including failed ones; 0 " +
				"means no limit"},
		{Name: "PLASPY_DAILY_RESULTS", Type: typeInt, Min: "0", Max: "1000000000",
			Meaning: "results (a location or an alert in an answer) per device and UTC day that polling, back-fill and " +
				"alert history may use; 0 means no limit"},
		{Name: "PLASPY_DAILY_USAGE", Type: typeInt, Min: "0", Max: "1000000000",
			Meaning: "the account's usage per UTC day, as the API counts it in apiDailyUsage; all replicas pace " +
				"their requests so " +
				"that it lasts until midnight, posts first; 0 means no limit"},
	}},
	{"NATS", []Variable{
		{Name: "NATS_URL", Type: typeURLs,
			Meaning: "servers, comma separated (nats://, tls://, ws:// or wss://); if empty, the embedded server is used"},
		{Name: "NATS_CREDS", Type: typeFile, Meaning: "credentials file of the NATS user"},
		{Name: "NATS_NKEY", Type: typeFile, Meaning: "file with the NKey seed of the NATS user"},
		{Name: "NATS_USER", Type: typeSecret, Meaning: "NATS user name, or a token if NATS_PASSWORD is empty"},
		{Name: "NATS_PASSWORD", Type: typeSecret, Meaning: "password of NATS_USER"},
		{Name: "NATS_TOKEN", Type: typeSecret, Meaning: "NATS authentication token"},
		{Name: "NATS_CA", Type: typeFile,
			Meaning: "file with the certificate authorities that the NATS server's certificate is checked against; " +
				"if empty, the system's are used"},
		{Name: "NATS_CERT", Type: typeFile, Meaning: "file with the client certificate for NATS; requires NATS_KEY"},
		{Name: "NATS_KEY", Type: typeFile, Meaning: "file with the key of NATS_CERT"},
		{Name: "NATS_TLS_FIRST", Type: typeBool,
			Meaning: "begin TLS before the server has sent anything, for a server with handshake_first"},
		{Name: "NATS_INBOX_PREFIX", Type: typeText,
			Meaning: "first part of the subjects for answers; the user must be allowed to subscribe to everything below it"},
		{Name: "NATS_JS_DOMAIN", Type: typeText,
			Meaning: "JetStream domain of the streams; if empty, that of the server"},
		{Name: "NATS_QUERY_CREDS", Type: typeFile,
			Meaning: "credentials file of a NATS user for the query service only; without any NATS_QUERY_ variable " +
				"it uses the bridge's user"},
		{Name: "NATS_QUERY_NKEY", Type: typeFile, Meaning: "file with the NKey seed of that user"},
		{Name: "NATS_QUERY_USER", Type: typeSecret,
			Meaning: "name of that user, or a token if NATS_QUERY_PASSWORD is empty"},
		{Name: "NATS_QUERY_PASSWORD", Type: typeSecret, Meaning: "password of NATS_QUERY_USER"},
	}},
	{"Embedded NATS server", []Variable{
		{Name: "BRIDGE_DATA_DIR", Type: typeFolder,
			Meaning: "folder in which the embedded server keeps its streams, unless BRIDGE_EMBEDDED_CONFIG sets store_dir"},
		{Name: "BRIDGE_EMBEDDED_ADDR", Type: typeAddress,
			Meaning: "address that the embedded server listens on; ignored with BRIDGE_EMBEDDED_CONFIG"},
		{Name: "BRIDGE_EMBEDDED_CONFIG", Type: typeFile,
			Meaning: "nats-server configuration file for the embedded server, for accounts, TLS, MQTT or leaf nodes; " +
				"without listen in it, the server listens on every interface"},
	}},
	{"Streams", []Variable{
		{Name: "BRIDGE_PREFIX", Type: typeText,
			Meaning: "first token of every subject, and the name of the query service; also the first part of " +
				"the names of buckets (with _ for -) and streams (in upper case)"},
		{Name: "BRIDGE_STREAM_REPLICAS", Type: typeInt, Min: "1", Max: "5",
			Meaning: "replicas of each stream and bucket that the bridge creates in a NATS cluster"},
		{Name: "BRIDGE_RETENTION", Type: typeDuration, Min: "1m",
			Meaning: "how long events and results stay in their streams"},
		{Name: "BRIDGE_EVENTS_MAX_BYTES", Type: typeInt, Min: "0",
			Meaning: "size limit of the events stream in bytes, oldest events are deleted first; 0 means no limit, " +
				"any other value is 1000000 or more"},
	}},
	{"Polling", []Variable{
		{Name: "BRIDGE_REPLICA_ID", Type: typeText,
			Meaning: "name of this replica, unique in its group; if empty, host name and process id"},
		{Name: "BRIDGE_WORKERS", Type: typeInt, Min: "1", Max: "10000", Meaning: "polls in flight at once"},
		{Name: "BRIDGE_POLL_INTERVAL", Type: typeDuration, Min: "100ms",
			Meaning: "longest time between two polls of a device, if the request budget permits"},
		{Name: "BRIDGE_SCHEDULE", OneOf: []string{"adaptive", "fixed"},
			Meaning: "adaptive polls each device when its next fix is due; fixed polls every device once per " +
				"BRIDGE_POLL_INTERVAL"},
		{Name: "BRIDGE_TRIP_START_WEIGHT", Type: typeNumber, Min: "1", Max: "64",
			Meaning: "adaptive schedule only: weight of the first fix of a trip, compared with 1 for other fixes"},
		{Name: "BRIDGE_WEIGHTS", Type: typeList,
			Meaning: "adaptive schedule only: weights of devices, as glob=weight, comma separated, each weight 0.1 to 64; " +
				"the first glob that matches decides, other devices have 1"},
		{Name: "BRIDGE_DEVICES", Type: typeList,
			Meaning: "device ids or globs, comma separated: only these are polled; if empty, all are"},
		{Name: "BRIDGE_DEVICES_EXCLUDE", Type: typeList,
			Meaning: "device ids or globs, comma separated: these are not polled"},
		{Name: "BRIDGE_GROUPS", Type: typeList,
			Meaning: "group ids or names, comma separated: only their devices are polled; if empty, all are"},
		{Name: "BRIDGE_EVENT_GROUPS", Type: typeBool,
			Meaning: "add the ids of the device's groups to location and alert events; costs one more request per " +
				"BRIDGE_DEVICES_REFRESH"},
		{Name: "BRIDGE_DEVICES_REFRESH", Type: typeDuration, Min: "1s",
			Meaning: "time between two reads of the device list"},
		{Name: "BRIDGE_IGNORE_FIELDS", Type: typeList,
			Meaning: "fields of lastLocation, comma separated, that are ignored when locations are compared; a lone " +
				"comma means none"},
		{Name: "BRIDGE_SILENT_AFTER", Type: typeDuration, Min: "0s",
			Meaning: "a device whose fix has not changed for this long raises the alert silent; 0 means never"},
		{Name: "BRIDGE_BACKFILL", Type: typeBool,
			Meaning: "read the fixes between two polls from the API and publish them first, in order"},
		{Name: "BRIDGE_BACKFILL_AFTER", Type: typeDuration, Min: "0s",
			Meaning: "BRIDGE_BACKFILL reads a gap if a fix is more than this later than the newest fix before it"},
		{Name: "BRIDGE_BACKFILL_MAX", Type: typeDuration, Min: "1m",
			Meaning: "how far back-fill and alert history reach back; a longer gap is counted and logged"},
		{Name: "BRIDGE_ALERT_HISTORY", Type: typeBool,
			Meaning: "read the alerts since the last one seen from the API, so that none between two polls is missed"},
	}},
	{"Retries", []Variable{
		{Name: "BRIDGE_BACKOFF_INITIAL", Type: typeDuration, Min: "10ms", Max: "1h",
			Meaning: "first delay after a failed poll, post or read of the device list; each further delay is longer, with " +
				"jitter"},
		{Name: "BRIDGE_BACKOFF_MAX", Type: typeDuration, Min: "10ms", Max: "24h",
			Meaning: "longest delay after a failure; at least BRIDGE_BACKOFF_INITIAL"},
	}},
	{"Inbound", []Variable{
		{Name: "BRIDGE_INBOUND", Type: typeBool, Meaning: "post the messages of the inbound subjects to the API"},
		{Name: "BRIDGE_INBOUND_WORKERS", Type: typeInt, Min: "1", Max: "10000", Meaning: "posts in flight at once"},
		{Name: "BRIDGE_INBOUND_MAX_AGE", Type: typeDuration, Min: "1s",
			Meaning: "a message that could not be posted within this time becomes a dead letter"},
		{Name: "BRIDGE_INBOUND_FORMS", Type: typeList, Empty: "none",
			Meaning: "formats of other products, comma separated, that are accepted as locations: owntracks, traccar"},
	}},
	{"Query service", []Variable{
		{Name: "BRIDGE_QUERY", Type: typeBool,
			Meaning: "run the query service, which answers requests about devices over NATS"},
	}},
	{"Operations", []Variable{
		{Name: "BRIDGE_HTTP_ADDR", Type: typeAddress, Empty: "none",
			Meaning: "address of health, metrics and the live view; if set to nothing, they are not served"},
		{Name: "BRIDGE_HTTP_TOKEN", Type: typeSecret,
			Meaning: "bearer token for the live view, /devices.geojson, /events and /debug/pprof; without one they are " +
				"served on loopback only"},
		{Name: "BRIDGE_PPROF", Type: typeBool, Meaning: "serve /debug/pprof on BRIDGE_HTTP_ADDR, behind BRIDGE_HTTP_TOKEN"},
		{Name: "BRIDGE_LOG_LEVEL", Type: typeLevel, Meaning: "lowest level that is logged"},
		{Name: "BRIDGE_LOG_FORMAT", OneOf: []string{"auto", "text", "json"},
			Meaning: "auto writes coloured text to a terminal and JSON elsewhere"},
		{Name: "BRIDGE_SHUTDOWN_TIMEOUT", Type: typeDuration, Min: "1s", Max: "10m",
			Meaning: "time limit of a graceful stop; keep it below the orchestrator's own limit"},
	}},
	{"OpenTelemetry (read by its own packages)", []Variable{
		{Name: "OTEL_SDK_DISABLED", Type: typeBool, Default: "false", Meaning: "disable traces and the export of metrics"},
		{Name: "OTEL_TRACES_EXPORTER", OneOf: []string{"otlp", "none"}, Default: "otlp", Meaning: "none means no traces"},
		{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Type: typeURL,
			Meaning: "URL of the collector, such as http://localhost:4318 (4317 with grpc); v1/traces is appended to " +
				"its path; " +
				"if empty, there are no traces"},
		{Name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Type: typeURL,
			Meaning: "the same for traces only, with the whole path"},
		{Name: "OTEL_EXPORTER_OTLP_PROTOCOL", OneOf: protocols, Default: "http/protobuf",
			Meaning: "protocol of the collector"},
		{Name: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", OneOf: protocols, Meaning: "the same for traces only"},
		{Name: "OTEL_EXPORTER_OTLP_HEADERS", Type: typeSecret,
			Meaning: "headers for the collector, name=value, comma separated, values percent-encoded"},
		{Name: "OTEL_EXPORTER_OTLP_TRACES_HEADERS", Type: typeSecret, Meaning: "the same for traces only"},
		{Name: "OTEL_EXPORTER_OTLP_CERTIFICATE", Type: typeFile,
			Meaning: "file with the certificate authorities that the collector's certificate is checked against; " +
				"if empty, the system's are used"},
		{Name: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", Type: typeFile,
			Meaning: "file with the client certificate for the collector; requires OTEL_EXPORTER_OTLP_CLIENT_KEY"},
		{Name: "OTEL_EXPORTER_OTLP_CLIENT_KEY", Type: typeFile,
			Meaning: "file with the key of OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"},
		{Name: "OTEL_EXPORTER_OTLP_COMPRESSION", OneOf: []string{"none", "gzip"}, Default: "none",
			Meaning: "compression of the exports"},
		{Name: "OTEL_EXPORTER_OTLP_TIMEOUT", Type: typeInt, Default: "10000", Min: "1", Max: "600000",
			Meaning: "time limit of one export in milliseconds"},
		{Name: "OTEL_SERVICE_NAME", Type: typeText, Default: "plaspy-bridge", Meaning: "name of this service in traces"},
		{Name: "OTEL_RESOURCE_ATTRIBUTES", Type: typeText,
			Meaning: "attributes of this process in traces, in addition to service.version and service.instance.id " +
				"(BRIDGE_REPLICA_ID): name=value, comma separated, values percent-encoded"},
		{Name: "OTEL_TRACES_SAMPLER", Type: "sampler", OneOf: samplers, Default: "parentbased_always_on",
			Meaning: "which polls, messages and queries are traced: always_on, always_off or traceidratio; with " +
				"parentbased_ in front, the producer's traceparent decides first"},
		{Name: "OTEL_TRACES_SAMPLER_ARG", Type: typeNumber, Min: "0", Max: "1",
			Meaning: "for the samplers with traceidratio: the fraction that is traced; if empty, 1"},
		{Name: "OTEL_METRICS_EXPORTER", Type: typeText, Default: "none",
			Meaning: "otlp sends the metrics to the collector too; they are served at /metrics in any case"},
		{Name: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", Type: typeURL,
			Meaning: "URL of the collector for metrics only, with the whole path; if both endpoints are empty, " +
				"a collector on this machine"},
		{Name: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", OneOf: protocols,
			Meaning: "protocol of the collector for metrics only"},
		{Name: "OTEL_EXPORTER_OTLP_METRICS_HEADERS", Type: typeSecret,
			Meaning: "headers for the collector for metrics only"},
		{Name: "OTEL_METRIC_EXPORT_INTERVAL", Type: typeInt, Default: "60000", Min: "100", Max: "86400000",
			Meaning: "time between two exports of metrics in milliseconds"},
	}},
}

// protocols are the values of OTEL_EXPORTER_OTLP_PROTOCOL.
var protocols = []string{"http/protobuf", "http/json", "grpc"}

// samplers are the values of OTEL_TRACES_SAMPLER.
var samplers = []string{
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
	"always_on", "always_off", "traceidratio",
}
