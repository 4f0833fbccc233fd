// Package config reads the environment into a Config: defaults, validation,
// secrets, and the settings that all replicas must share.
package config

import (
	"log/slog"
	"net/url"
	"time"
)

// Schedule names a way of choosing which device to poll next.
type Schedule string

// The schedules of BRIDGE_SCHEDULE.
const (
	ScheduleAdaptive Schedule = "adaptive" // learns each device's rhythm and asks when news is due
	ScheduleFixed    Schedule = "fixed"    // every device once per BRIDGE_POLL_INTERVAL
)

// LogFormat names a form of the log.
type LogFormat string

// The formats of BRIDGE_LOG_FORMAT.
const (
	LogAuto LogFormat = "auto" // text on a terminal, JSON elsewhere
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Config is everything an operator can set, one field for each environment
// variable. [Load] fills it; a Config that Load returned without an error needs
// no further checks. It is a plain value, safe to copy, and safe to print: what
// is secret in it says so only to [Secret.Reveal] and [Servers.Reveal].
//
// The tags are the one source of the settings table, of deploy/env.example and
// of the checks: envconfig and default are envconfig's; desc is the meaning;
// min and max bound a number or a duration; oneof lists the words allowed;
// kind is a type that Go's does not show; required and file mean what they say;
// empty tells that a variable set to nothing is not the same as one not set;
// section heads a group.
type Config struct {
	// BaseURL has no trailing slash, user, query or fragment. It is configurable
	// because the API is sold under several brands.
	BaseURL url.URL `envconfig:"PLASPY_BASE_URL" default:"https://api.plaspy.com" section:"Plaspy API" desc:"root of the REST API; plain http only for loopback, unless PLASPY_ALLOW_HTTP is true"`
	// AllowHTTP is off because the API key and the token travel in every request.
	AllowHTTP bool `envconfig:"PLASPY_ALLOW_HTTP" default:"false" desc:"allow a PLASPY_BASE_URL with plain http to another machine, which shows the API key to the network"`
	// Username is the account's.
	Username string `envconfig:"PLASPY_USERNAME" required:"true" desc:"user name of the account"`
	// APIKey and APIKeyFile exclude each other; see [Config.KeySource].
	APIKey     Secret `envconfig:"PLASPY_API_KEY" desc:"the account's API key; exactly one of this and PLASPY_API_KEY_FILE"`
	APIKeyFile string `envconfig:"PLASPY_API_KEY_FILE" kind:"file" desc:"file with the API key, read again at every token request, so that a rotated key needs no restart"`
	// Timeout begins when the request budget has let the request go.
	Timeout time.Duration `envconfig:"PLASPY_TIMEOUT" default:"10s" min:"100ms" max:"10m" desc:"how long one request may take, its answer's body included"`
	// RateLimit of 600 a minute is a guess on the careful side: the vendor
	// publishes no number, and answers 429 where it is too many.
	RateLimit int `envconfig:"PLASPY_RATE_LIMIT" default:"600" min:"0" max:"1000000" desc:"requests sent per minute, failed ones too, every endpoint and every replica together; 0: no limit"`
	// DailyResults is off because the vendor publishes no number for it either.
	DailyResults int `envconfig:"PLASPY_DAILY_RESULTS" default:"0" min:"0" max:"1000000000" desc:"results (a location or an alert in an answer) per device and UTC day that polling, back-fill and alert history may use; 0: no limit"`

	// NATSURL empty means the embedded server.
	NATSURL Servers `envconfig:"NATS_URL" section:"NATS" desc:"servers, comma separated (nats://, tls://, ws:// or wss://); empty: the embedded server"`
	// The credentials and certificates below are as the nats CLI has them.
	NATSCreds    string `envconfig:"NATS_CREDS" file:"true" desc:"credentials file of the NATS user"`
	NATSNKey     string `envconfig:"NATS_NKEY" file:"true" desc:"file with the NKey seed of the NATS user"`
	NATSUser     Secret `envconfig:"NATS_USER" desc:"NATS user name, or a token where NATS_PASSWORD is empty"`
	NATSPassword Secret `envconfig:"NATS_PASSWORD" desc:"password of NATS_USER"`
	NATSToken    Secret `envconfig:"NATS_TOKEN" desc:"NATS authentication token"`
	NATSCA       string `envconfig:"NATS_CA" file:"true" desc:"file with the certificate authorities that the NATS server's certificate is checked against; empty: the system's"`
	NATSCert     string `envconfig:"NATS_CERT" file:"true" desc:"file with the client certificate for NATS; wants NATS_KEY"`
	NATSKey      string `envconfig:"NATS_KEY" file:"true" desc:"file with the key of NATS_CERT"`

	// DataDir is relative by default, so that a trial leaves its data where it was started.
	DataDir string `envconfig:"BRIDGE_DATA_DIR" default:"./data" section:"Embedded NATS server" kind:"folder" desc:"where the embedded server keeps its streams"`
	// EmbeddedAddr is on loopback because the embedded server has no accounts of its own.
	EmbeddedAddr string `envconfig:"BRIDGE_EMBEDDED_ADDR" default:"127.0.0.1:4222" kind:"address" desc:"where the embedded server listens"`
	// EmbeddedConfig replaces DataDir and EmbeddedAddr where it sets them.
	EmbeddedConfig string `envconfig:"BRIDGE_EMBEDDED_CONFIG" file:"true" desc:"a nats-server configuration file for the embedded server instead (accounts, TLS, MQTT, leaf nodes)"`

	// Prefix is one legal token of a NATS subject.
	Prefix string `envconfig:"BRIDGE_PREFIX" default:"plaspy" section:"Streams" desc:"first token of every subject and the service's name; with _ for - the first part of every bucket's name, upper-cased of every stream's"`
	// StreamReplicas above 1 wants a NATS cluster.
	StreamReplicas int `envconfig:"BRIDGE_STREAM_REPLICAS" default:"1" min:"1" max:"5" desc:"copies that the NATS cluster keeps of each stream and bucket that the bridge creates"`
	// Retention of a week covers a subscriber that was down over a long weekend.
	Retention time.Duration `envconfig:"BRIDGE_RETENTION" default:"168h" min:"1m" desc:"how long events stay in the stream"`

	// ReplicaID is filled in by Load: host name and process id differ between
	// the processes of a machine and the machines of a cluster.
	ReplicaID string `envconfig:"BRIDGE_REPLICA_ID" section:"Polling" desc:"this replica's name, different for each; empty: host name and process id"`
	// Workers of 16 keep a budget of 600 a minute busy with answers as slow as 1.6 s.
	Workers int `envconfig:"BRIDGE_WORKERS" default:"16" min:"1" max:"10000" desc:"polls under way at once"`
	// PollInterval is an upper bound, not a cadence, with the adaptive schedule.
	PollInterval time.Duration `envconfig:"BRIDGE_POLL_INTERVAL" default:"60s" min:"100ms" desc:"the longest a device goes without a poll, budget permitting"`
	// Schedule is adaptive because the same budget then finds news sooner.
	Schedule Schedule `envconfig:"BRIDGE_SCHEDULE" default:"adaptive" oneof:"adaptive,fixed" desc:"adaptive: each device when its next fix is due; fixed: every device once per BRIDGE_POLL_INTERVAL"`
	// TripStartWeight of 1 treats every fix alike.
	TripStartWeight float64 `envconfig:"BRIDGE_TRIP_START_WEIGHT" default:"1" min:"1" max:"64" desc:"adaptive schedule only: how much more the first fix of a trip counts than any other"`
	// Devices and DevicesExclude choose what is polled, not what may be posted to.
	Devices        []string `envconfig:"BRIDGE_DEVICES" desc:"device ids or globs, comma separated: only these are polled; empty: all"`
	DevicesExclude []string `envconfig:"BRIDGE_DEVICES_EXCLUDE" desc:"device ids or globs, comma separated: these are not polled"`
	// Groups narrows Devices further.
	Groups []string `envconfig:"BRIDGE_GROUPS" desc:"group ids or names, comma separated: only their devices are polled; empty: all"`
	// DevicesRefresh of 5m costs one or two requests of 3000.
	DevicesRefresh time.Duration `envconfig:"BRIDGE_DEVICES_REFRESH" default:"5m" min:"1s" desc:"how often the device list is read again"`
	// IgnoreFields has inactiveSeconds because it grows with nothing new from the device.
	IgnoreFields []string `envconfig:"BRIDGE_IGNORE_FIELDS" default:"inactiveSeconds" desc:"fields of lastLocation, comma separated, whose change alone is no change; a lone comma: none"`
	// SilentAfter is off because only the operator knows how long a device may rest.
	SilentAfter time.Duration `envconfig:"BRIDGE_SILENT_AFTER" default:"0s" min:"0s" desc:"a device whose fix has not changed for this long raises the alert silent; 0: never"`
	// Backfill is off because it costs requests and daily results.
	Backfill bool `envconfig:"BRIDGE_BACKFILL" default:"false" desc:"ask the API for the fixes between two polls and publish them first, in order"`
	// BackfillAfter says which gap is one; a device that reports each second has none.
	BackfillAfter time.Duration `envconfig:"BRIDGE_BACKFILL_AFTER" default:"1s" min:"0s" desc:"how much later than the fix before a fix must be for BRIDGE_BACKFILL to ask what lay between"`
	// AlertHistory is off for the reason of Backfill.
	AlertHistory bool `envconfig:"BRIDGE_ALERT_HISTORY" default:"false" desc:"ask the API for the alerts since the last one seen, so that none between two polls is missed"`

	// Inbound false leaves the inbound stream alone altogether.
	Inbound bool `envconfig:"BRIDGE_INBOUND" default:"true" section:"Inbound" desc:"post what arrives on the inbound subjects to the API"`
	// InboundWorkers bounds the lanes at work, not the lanes.
	InboundWorkers int `envconfig:"BRIDGE_INBOUND_WORKERS" default:"16" min:"1" max:"10000" desc:"posts under way at once"`
	// InboundMaxAge of a day outlasts a night's outage.
	InboundMaxAge time.Duration `envconfig:"BRIDGE_INBOUND_MAX_AGE" default:"24h" min:"1s" desc:"a message that could not be delivered this long after the stream took it is dead-lettered"`
	// BackoffInitial and BackoffMax are before jitter.
	BackoffInitial time.Duration `envconfig:"BRIDGE_BACKOFF_INITIAL" default:"500ms" min:"10ms" max:"1h" desc:"the first wait after a failure; each further one is longer, with jitter"`
	BackoffMax     time.Duration `envconfig:"BRIDGE_BACKOFF_MAX" default:"1m" min:"10ms" max:"24h" desc:"the longest wait after a failure; at least BRIDGE_BACKOFF_INITIAL"`

	// HTTPAddr is on loopback because the live view shows where vehicles are.
	HTTPAddr string `envconfig:"BRIDGE_HTTP_ADDR" default:"127.0.0.1:8080" section:"Operations" kind:"address" empty:"none" desc:"where health, metrics and the live view are served; set to nothing: nowhere"`
	// HTTPToken guards the live view alone; health and metrics are open.
	HTTPToken Secret `envconfig:"BRIDGE_HTTP_TOKEN" desc:"bearer token for the live view; without one it is served on loopback only"`
	// Pprof is off because profiles show memory, secrets included.
	Pprof bool `envconfig:"BRIDGE_PPROF" default:"false" desc:"serve /debug/pprof on BRIDGE_HTTP_ADDR"`
	// LogLevel debug has a line per message.
	LogLevel slog.Level `envconfig:"BRIDGE_LOG_LEVEL" default:"info" kind:"debug, info, warn or error" desc:"the least severe line that is logged"`
	// LogFormat auto suits both a person and a collector without being set.
	LogFormat LogFormat `envconfig:"BRIDGE_LOG_FORMAT" default:"auto" oneof:"auto,text,json" desc:"auto: tinted text on a terminal, JSON elsewhere"`
	// ShutdownTimeout of 20s is below the 30 s after which orchestrators kill.
	ShutdownTimeout time.Duration `envconfig:"BRIDGE_SHUTDOWN_TIMEOUT" default:"20s" min:"1s" max:"10m" desc:"how long a graceful stop may take; keep it below the orchestrator's own limit"`

	// What follows is OpenTelemetry's own, with its names, defaults and meanings.
	// TracingDisabled turns tracing off whatever else is set.
	TracingDisabled bool `envconfig:"OTEL_SDK_DISABLED" default:"false" section:"Tracing" desc:"no traces, whatever else is set"`
	// TracesExporter is OTLP, which needs an endpoint to mean anything.
	TracesExporter string `envconfig:"OTEL_TRACES_EXPORTER" default:"otlp" oneof:"otlp,none" desc:"none: no traces"`
	// OTLPEndpoint empty means that there are no traces: OpenTelemetry's default,
	// a collector on this machine, would have every bridge without one complain.
	OTLPEndpoint Endpoint `envconfig:"OTEL_EXPORTER_OTLP_ENDPOINT" desc:"the collector, such as http://localhost:4318 (4317 with grpc); v1/traces is appended to its path; empty: no traces"`
	// OTLPTracesEndpoint goes before OTLPEndpoint, and is taken as it is.
	OTLPTracesEndpoint Endpoint `envconfig:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" desc:"the same for traces alone, with its whole path"`
	// OTLPProtocol is HTTP because it passes every proxy.
	OTLPProtocol       string `envconfig:"OTEL_EXPORTER_OTLP_PROTOCOL" default:"http/protobuf" oneof:"http/protobuf,http/json,grpc" desc:"how the collector is talked to"`
	OTLPTracesProtocol string `envconfig:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" desc:"the same for traces alone"`
	// OTLPHeaders are secret because they are how one logs in.
	OTLPHeaders       Secret `envconfig:"OTEL_EXPORTER_OTLP_HEADERS" desc:"headers for the collector, name=value, comma separated, values percent-encoded"`
	OTLPTracesHeaders Secret `envconfig:"OTEL_EXPORTER_OTLP_TRACES_HEADERS" desc:"the same for traces alone, instead"`
	OTLPCA            string `envconfig:"OTEL_EXPORTER_OTLP_CERTIFICATE" file:"true" desc:"file with the certificate authorities that the collector's certificate is checked against; empty: the system's"`
	OTLPCert          string `envconfig:"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" file:"true" desc:"file with the client certificate for the collector; wants OTEL_EXPORTER_OTLP_CLIENT_KEY"`
	OTLPKey           string `envconfig:"OTEL_EXPORTER_OTLP_CLIENT_KEY" file:"true" desc:"file with the key of OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"`
	OTLPCompression   string `envconfig:"OTEL_EXPORTER_OTLP_COMPRESSION" default:"none" oneof:"none,gzip" desc:"of what the collector is sent"`
	// OTLPTimeout is in milliseconds, a plain number, as OpenTelemetry has it.
	OTLPTimeout int `envconfig:"OTEL_EXPORTER_OTLP_TIMEOUT" default:"10000" min:"1" max:"600000" desc:"milliseconds that one export may take"`
	// ServiceName goes before a service.name of ResourceAttributes, unless it is the default.
	ServiceName        string `envconfig:"OTEL_SERVICE_NAME" default:"plaspy-bridge" desc:"what traces call this service"`
	ResourceAttributes string `envconfig:"OTEL_RESOURCE_ATTRIBUTES" desc:"what traces say of this process beside service.version and service.instance.id (BRIDGE_REPLICA_ID): name=value, comma separated, values percent-encoded"`
	// TracesSampler by default takes every trace, ten a second with the default rate limit.
	TracesSampler    string `envconfig:"OTEL_TRACES_SAMPLER" default:"parentbased_always_on" oneof:"parentbased_always_on,parentbased_always_off,parentbased_traceidratio,always_on,always_off,traceidratio" kind:"sampler" desc:"which polls, messages and queries are traced: always_on, always_off or traceidratio; with parentbased_ in front, what a producer's traceparent says goes first"`
	TracesSamplerArg string `envconfig:"OTEL_TRACES_SAMPLER_ARG" kind:"number" desc:"of the samplers with traceidratio: the part that is traced, 0 to 1; empty: 1"`
}

// Embedded reports whether the bridge runs its own NATS server.
func (c Config) Embedded() bool { return len(c.NATSURL.List()) == 0 }
