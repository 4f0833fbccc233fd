// Package config reads the environment into a [Config]: defaults, validation,
// secrets, and the settings that all replicas must share.
//
// To add a setting, add a field with its variable and default to [Config], and
// a line with its type, bounds and meaning to the table in table.go.
// deploy/docs/settings.md, deploy/env.example and the env command are made from both.
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
	ScheduleAdaptive Schedule = "adaptive" // learns each device's rhythm and polls when news is due
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
// variable; OpenTelemetry reads its own variables itself. [Load] fills it, and a
// Config that Load returned without an error needs no further checks. It is a
// plain value, safe to copy, and safe to print: only [Secret.Reveal] and
// [Servers.Reveal] return the secrets in it.
//
// The tags are envconfig's. The comments give the reason for a default; the
// meanings are in table.go.
type Config struct {
	// BaseURL has no trailing slash, user, query or fragment. It is configurable
	// because the API is sold under several brands.
	BaseURL url.URL `envconfig:"PLASPY_BASE_URL" default:"https://api.plaspy.com"`
	// AllowHTTP is off because the API key and the token travel in every request.
	AllowHTTP bool   `envconfig:"PLASPY_ALLOW_HTTP" default:"false"`
	Username  string `envconfig:"PLASPY_USERNAME"`
	// APIKey and APIKeyFile exclude each other; see [Config.KeySource].
	APIKey     Secret `envconfig:"PLASPY_API_KEY"`
	APIKeyFile string `envconfig:"PLASPY_API_KEY_FILE"`
	// Timeout begins when the request budget has admitted the request.
	Timeout time.Duration `envconfig:"PLASPY_TIMEOUT" default:"10s"`
	// RateLimit of 600 a minute is a cautious guess: the vendor publishes no
	// number, and answers 429 if it is exceeded.
	RateLimit int `envconfig:"PLASPY_RATE_LIMIT" default:"600"`
	// DailyResults is off because the vendor publishes no number for it either.
	DailyResults int `envconfig:"PLASPY_DAILY_RESULTS" default:"0"`
	// DailyUsage is off for the same reason; the metric api_daily_usage shows the usage.
	DailyUsage int `envconfig:"PLASPY_DAILY_USAGE" default:"0"`

	// NATSURL empty means the embedded server.
	NATSURL      Servers `envconfig:"NATS_URL"`
	NATSCreds    string  `envconfig:"NATS_CREDS"`
	NATSNKey     string  `envconfig:"NATS_NKEY"`
	NATSUser     Secret  `envconfig:"NATS_USER"`
	NATSPassword Secret  `envconfig:"NATS_PASSWORD"`
	NATSToken    Secret  `envconfig:"NATS_TOKEN"`
	NATSCA       string  `envconfig:"NATS_CA"`
	NATSCert     string  `envconfig:"NATS_CERT"`
	NATSKey      string  `envconfig:"NATS_KEY"`
	NATSTLSFirst bool    `envconfig:"NATS_TLS_FIRST" default:"false"`
	// NATSInboxPrefix lets the server's permissions keep other users of the account
	// from reading the answers.
	NATSInboxPrefix string `envconfig:"NATS_INBOX_PREFIX" default:"_INBOX"`
	NATSDomain      string `envconfig:"NATS_JS_DOMAIN"`
	// The query service can do with fewer permissions than the bridge.
	NATSQueryCreds    string `envconfig:"NATS_QUERY_CREDS"`
	NATSQueryNKey     string `envconfig:"NATS_QUERY_NKEY"`
	NATSQueryUser     Secret `envconfig:"NATS_QUERY_USER"`
	NATSQueryPassword Secret `envconfig:"NATS_QUERY_PASSWORD"`

	// DataDir is relative, so that a trial leaves its data in the folder it was started in.
	DataDir string `envconfig:"BRIDGE_DATA_DIR" default:"./data"`
	// EmbeddedAddr is on loopback because the embedded server has no accounts of its own.
	EmbeddedAddr string `envconfig:"BRIDGE_EMBEDDED_ADDR" default:"127.0.0.1:4222"`
	// EmbeddedConfig replaces EmbeddedAddr, and DataDir if it sets store_dir.
	EmbeddedConfig string `envconfig:"BRIDGE_EMBEDDED_CONFIG"`

	// Prefix is one legal token of a NATS subject.
	Prefix string `envconfig:"BRIDGE_PREFIX" default:"plaspy"`
	// StreamReplicas above 1 requires a NATS cluster.
	StreamReplicas int `envconfig:"BRIDGE_STREAM_REPLICAS" default:"1"`
	// Retention of a week covers a subscriber that was down over a long weekend.
	Retention time.Duration `envconfig:"BRIDGE_RETENTION" default:"168h"`
	// EventsMaxBytes of 0 leaves the size to the retention. A limit is set aside
	// from the store when the stream is created.
	EventsMaxBytes int64 `envconfig:"BRIDGE_EVENTS_MAX_BYTES" default:"0"`

	// ReplicaID is filled in by Load: host name and process id differ between
	// the processes of a machine and the machines of a cluster.
	ReplicaID string `envconfig:"BRIDGE_REPLICA_ID"`
	// Workers of 16 keep a budget of 600 a minute busy with answers as slow as 1.6 s.
	Workers int `envconfig:"BRIDGE_WORKERS" default:"16"`
	// PollInterval is an upper bound, not a cadence, with the adaptive schedule.
	PollInterval time.Duration `envconfig:"BRIDGE_POLL_INTERVAL" default:"60s"`
	// Schedule is adaptive because it finds news sooner with the same budget.
	Schedule Schedule `envconfig:"BRIDGE_SCHEDULE" default:"adaptive"`
	// TripStartWeight of 1 treats every fix alike.
	TripStartWeight float64 `envconfig:"BRIDGE_TRIP_START_WEIGHT" default:"1"`
	// Weights are entries "glob=weight"; see [Config.DeviceWeights].
	Weights []string `envconfig:"BRIDGE_WEIGHTS"`
	// Devices and DevicesExclude select the devices that are polled, not those that may be posted to.
	Devices        []string `envconfig:"BRIDGE_DEVICES"`
	DevicesExclude []string `envconfig:"BRIDGE_DEVICES_EXCLUDE"`
	// Groups narrows Devices further.
	Groups []string `envconfig:"BRIDGE_GROUPS"`
	// EventGroups is off because it costs a request per refresh.
	EventGroups bool `envconfig:"BRIDGE_EVENT_GROUPS" default:"false"`
	// DevicesRefresh of 5m costs one or two requests of 3000.
	DevicesRefresh time.Duration `envconfig:"BRIDGE_DEVICES_REFRESH" default:"5m"`
	// IgnoreFields has inactiveSeconds because it grows without news from the device.
	IgnoreFields []string `envconfig:"BRIDGE_IGNORE_FIELDS" default:"inactiveSeconds"`
	// SilentAfter is off because only the operator knows how long a device may rest.
	SilentAfter time.Duration `envconfig:"BRIDGE_SILENT_AFTER" default:"0s"`
	// Backfill is off because it costs requests and daily results.
	Backfill bool `envconfig:"BRIDGE_BACKFILL" default:"false"`
	// BackfillAfter of 1s finds no gap for a device that reports each second.
	BackfillAfter time.Duration `envconfig:"BRIDGE_BACKFILL_AFTER" default:"1s"`
	// BackfillMax of a day outlasts a night's outage, and bounds the cost of a
	// longer one.
	BackfillMax time.Duration `envconfig:"BRIDGE_BACKFILL_MAX" default:"24h"`
	// AlertHistory is off because it costs requests and daily results too.
	AlertHistory bool `envconfig:"BRIDGE_ALERT_HISTORY" default:"false"`

	// Inbound false leaves the inbound stream alone altogether.
	Inbound bool `envconfig:"BRIDGE_INBOUND" default:"true"`
	// InboundWorkers bounds the devices that are posted for at once.
	InboundWorkers int `envconfig:"BRIDGE_INBOUND_WORKERS" default:"16"`
	// InboundMaxAge of a day outlasts a night's outage.
	InboundMaxAge time.Duration `envconfig:"BRIDGE_INBOUND_MAX_AGE" default:"24h"`
	// InboundForms is empty because a form of another product may be sent by mistake.
	InboundForms []string `envconfig:"BRIDGE_INBOUND_FORMS"`
	// BackoffInitial and BackoffMax are before jitter.
	BackoffInitial time.Duration `envconfig:"BRIDGE_BACKOFF_INITIAL" default:"500ms"`
	BackoffMax     time.Duration `envconfig:"BRIDGE_BACKOFF_MAX" default:"1m"`

	// Query false means that there is no query service.
	Query bool `envconfig:"BRIDGE_QUERY" default:"true"`

	// HTTPAddr is on loopback because the live view shows the positions of vehicles.
	HTTPAddr string `envconfig:"BRIDGE_HTTP_ADDR" default:"127.0.0.1:8080"`
	// HTTPToken guards pages that show positions or memory; health and metrics are open.
	HTTPToken Secret `envconfig:"BRIDGE_HTTP_TOKEN"`
	// Pprof is off because profiles show memory, secrets included.
	Pprof bool `envconfig:"BRIDGE_PPROF" default:"false"`
	// LogLevel debug has a line per message.
	LogLevel slog.Level `envconfig:"BRIDGE_LOG_LEVEL" default:"info"`
	// LogFormat auto suits both a person and a collector without being set.
	LogFormat LogFormat `envconfig:"BRIDGE_LOG_FORMAT" default:"auto"`
	// ShutdownTimeout of 20s is below the 30 s after which orchestrators kill.
	ShutdownTimeout time.Duration `envconfig:"BRIDGE_SHUTDOWN_TIMEOUT" default:"20s"`
}

// Embedded reports whether the bridge runs its own NATS server.
func (c Config) Embedded() bool { return len(c.NATSURL.List()) == 0 }
