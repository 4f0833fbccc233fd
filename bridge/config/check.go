package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"plaspy-bridge/auth/redact"
	"plaspy-bridge/bridge/glob"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/bridge/trace"
)

var (
	// legalPrefix is the form that a NATS subject token, a stream name, a bucket name and a
	// service name all allow.
	legalPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	// legalName is the form of a key of a key-value bucket, without the dots that
	// would make tokens of it.
	legalName     = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	legalInbox    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}(\.[A-Za-z0-9_-]{1,128}){0,7}$`)
	illegalInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
)

// checker collects faults.
type checker struct{ faults Faults }

// unless notes a fault of the variable unless ok.
func (k *checker) unless(ok bool, variable, format string, args ...any) {
	if !ok {
		k.faults = append(k.faults, Fault{variable, fmt.Sprintf(format, args...)})
	}
}

// Validate returns the faults of c as [Faults], or nil: settings that are missing, that do not have the form which
// NATS or the API requires, or that do not go together. [Load] calls it, and checks the range of each variable.
func (c Config) Validate() error {
	var k checker
	k.unless(strings.TrimSpace(c.Username) != "", "PLASPY_USERNAME", "is not set; expected the user name of the account")
	k.api(c)
	k.broker(c)
	k.names(c)
	k.weights(c)
	k.tracing()
	_, err := message.ParseForms(c.InboundForms)
	k.unless(err == nil, "BRIDGE_INBOUND_FORMS",
		"has an unknown form; expected any of %s, comma separated", strings.Join(message.FormNames, ", "))
	k.unless(c.EventsMaxBytes <= 0 || c.EventsMaxBytes >= minEventsBytes, "BRIDGE_EVENTS_MAX_BYTES",
		"is %d, which is too small; expected at least %d bytes, or 0 for no limit", c.EventsMaxBytes, minEventsBytes)
	k.unless(c.BackoffMax >= c.BackoffInitial, "BRIDGE_BACKOFF_MAX",
		"is %s; expected at least BRIDGE_BACKOFF_INITIAL, which is %s",
		showDuration(c.BackoffMax), showDuration(c.BackoffInitial))
	if c.HTTPAddr != "" {
		k.address("BRIDGE_HTTP_ADDR", c.HTTPAddr)
	}
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	k.unless(!strings.ContainsFunc(c.HTTPToken.Reveal(), unprintable), "BRIDGE_HTTP_TOKEN",
		"has a character that an HTTP header cannot carry; expected printable ASCII without spaces")
	if len(k.faults) == 0 {
		return nil
	}
	sortFaults(k.faults)
	return k.faults
}

// api checks the settings of the REST API.
func (k *checker) api(c Config) {
	const name = "PLASPY_BASE_URL"
	u := c.BaseURL
	switch {
	case u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		k.unless(false, name, "is not a URL with a host; expected one such as https://api.plaspy.com")
	case u.Scheme == "http" && !c.AllowHTTP && !loopback(u.Hostname()):
		k.unless(false, name,
			"is plain http to another machine, which shows the API key to the network; use https, or set "+
				"PLASPY_ALLOW_HTTP=true")
	}
	k.unless(validPort(u.Port(), u.Host), name, "has an invalid port; expected 1 to 65535")
	k.unless(u.User == nil, name, "contains a user or password; use PLASPY_USERNAME and PLASPY_API_KEY instead")
	k.unless(u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.Opaque == "", name,
		"has more than scheme, host and path; remove ? and # and all behind them")

	switch {
	case c.APIKey == "" && c.APIKeyFile == "":
		k.unless(false, "PLASPY_API_KEY", "is not set; set it or PLASPY_API_KEY_FILE")
	case c.APIKey != "" && c.APIKeyFile != "":
		k.unless(false, "PLASPY_API_KEY", "and PLASPY_API_KEY_FILE are both set; set exactly one of them")
	case c.APIKeyFile != "":
		_, err := readKey(c.APIKeyFile)
		k.unless(err == nil, "PLASPY_API_KEY_FILE", "names a file without a usable key: %v", err)
	default:
		k.unless(plausibleKey(c.APIKey.Reveal()) == nil, "PLASPY_API_KEY",
			"is blank, or has line breaks or control characters; expected one line of text")
	}
}

// broker checks the settings of NATS.
func (k *checker) broker(c Config) {
	k.servers(c.NATSURL)
	k.login("NATS_", c.NATSCreds, c.NATSNKey, c.NATSUser, c.NATSPassword, c.NATSToken)
	k.login("NATS_QUERY_", c.NATSQueryCreds, c.NATSQueryNKey, c.NATSQueryUser, c.NATSQueryPassword, "")
	k.unless(legalInbox.MatchString(c.NATSInboxPrefix), "NATS_INBOX_PREFIX",
		"is not the first part of a subject; expected words of letters, digits, - and _ with dots between them, "+
			"such as _INBOX_bridge")
	k.unless(c.Prefix == "_INBOX" || firstToken(c.NATSInboxPrefix) != c.Prefix, "NATS_INBOX_PREFIX",
		"begins with BRIDGE_PREFIX; use another word, such as _INBOX_bridge")
	k.unless(c.NATSDomain == "" || legalName.MatchString(c.NATSDomain), "NATS_JS_DOMAIN",
		"is not one word; expected at most 128 letters, digits, - and _")
	k.unless(c.NATSCert == "" || c.NATSKey != "", "NATS_CERT", "is set without NATS_KEY; set both")
	k.unless(c.NATSKey == "" || c.NATSCert != "", "NATS_KEY", "is set without NATS_CERT; set both")
	if c.Embedded() {
		k.unless(c.DataDir != "", "BRIDGE_DATA_DIR", "is empty; set a folder")
		k.address("BRIDGE_EMBEDDED_ADDR", c.EmbeddedAddr)
		k.unless(c.StreamReplicas == 1 || c.EmbeddedConfig != "", "BRIDGE_STREAM_REPLICAS",
			"is %d; expected 1 with the embedded server, which is not a cluster", c.StreamReplicas)
	}
}

// login checks how the bridge, or the query service, logs in. prefix begins the names of the variables.
func (k *checker) login(prefix, creds, nkey string, user, password, token Secret) {
	var ways []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"CREDS", creds != ""}, {"NKEY", nkey != ""}, {"USER", user != "" || password != ""}, {"TOKEN", token != ""},
	} {
		if way.set {
			ways = append(ways, prefix+way.name)
		}
	}
	if len(ways) > 1 {
		k.unless(false, ways[0], "and %s are different ways to log in; set one of them", strings.Join(ways[1:], " and "))
	}
	k.unless(password == "" || user != "", prefix+"PASSWORD", "is set without %sUSER; set both", prefix)
}

// firstToken is the first token of a subject.
func firstToken(subject string) string {
	first, _, _ := strings.Cut(subject, ".")
	return first
}

// servers checks a list of NATS servers. It refers to an entry by its number, because
// the entry may contain a password.
func (k *checker) servers(s Servers) {
	const name = "NATS_URL"
	sockets := 0
	all := s.List()
	for i, server := range all {
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		switch {
		case err != nil:
			k.unless(false, name,
				"has an entry (number %d) that is not a URL; expected nats://host:4222, with special characters "+
					"in a user or password percent-encoded", i+1)
			continue
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
			k.unless(false, name, "has an entry (number %d) with another scheme; expected nats, tls, ws or wss", i+1)
		case u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Path, "@"):
			k.unless(false, name,
				"has an entry (number %d) that is not just a host and port; expected nats://host:4222, with "+
					"special characters in a user or password percent-encoded", i+1)
		}
		k.unless(validPort(u.Port(), u.Host), name,
			"has an entry (number %d) with an invalid port; expected 1 to 65535", i+1)
		if u.Scheme == "ws" || u.Scheme == "wss" {
			sockets++
		}
	}
	k.unless(sockets == 0 || sockets == len(all), name, "mixes websocket servers with others; use one kind")
}

// names checks names and patterns that are put into subjects or matched.
func (k *checker) names(c Config) {
	k.unless(legalPrefix.MatchString(c.Prefix), "BRIDGE_PREFIX",
		"is not one token; expected at most 64 letters, digits, - and _")
	k.unless(c.Prefix != "_INBOX", "BRIDGE_PREFIX", "is the prefix of NATS replies; use another word")
	k.unless(legalName.MatchString(c.ReplicaID), "BRIDGE_REPLICA_ID",
		"is not one word; expected at most 128 letters, digits, - and _")
	globs := map[string][]string{"BRIDGE_DEVICES": c.Devices, "BRIDGE_DEVICES_EXCLUDE": c.DevicesExclude}
	for name, patterns := range globs {
		for i, pattern := range patterns {
			err := glob.Check(pattern)
			k.unless(err == nil, name, "has a wrong glob (number %d): %v", i+1, err)
		}
	}
}

// address checks a host:port to listen on.
func (k *checker) address(variable, addr string) {
	host, port, err := net.SplitHostPort(addr)
	n, portErr := strconv.ParseUint(port, 10, 16)
	example := "127.0.0.1:8080, or :8080 for every interface"
	if variable == "BRIDGE_EMBEDDED_ADDR" {
		example = "127.0.0.1:4222"
	}
	k.unless(err == nil && portErr == nil && n <= 65535 && !strings.ContainsAny(host, " /@"), variable,
		"is not an address; expected host:port such as %s", example)
}

// validPort reports whether the port of a URL is absent or valid.
func validPort(port, host string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" && !strings.HasSuffix(host, ":") || err == nil && n > 0
}

// loopback reports whether a host is loopback, judged by its text alone.
func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// readable returns the reason why a file cannot be read, or nil. The error does not repeat
// the path, which would repeat a secret that was put there by mistake.
func readable(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return redact.FileError(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file") // opening a pipe would wait for its writer
	}
	f, err := os.Open(name)
	if err != nil {
		return redact.FileError(err)
	}
	return f.Close()
}

// doubts returns warnings about settings that are valid but probably not intended.
func (c Config) doubts() []Warning {
	var warnings []Warning
	doubt := func(when bool, variable, problem string) {
		if when {
			warnings = append(warnings, Warning{variable, problem})
		}
	}
	doubt(!c.Embedded() && c.EmbeddedConfig != "", "BRIDGE_EMBEDDED_CONFIG", "has no effect: NATS_URL names a server")
	doubt(!c.Embedded() && c.EmbeddedAddr != defaultOf("BRIDGE_EMBEDDED_ADDR"), "BRIDGE_EMBEDDED_ADDR",
		"has no effect: NATS_URL names a server")
	doubt(c.Embedded() && c.EmbeddedConfig != "" && c.EmbeddedAddr != defaultOf("BRIDGE_EMBEDDED_ADDR"), "BRIDGE_EMBEDDED_ADDR",
		"has no effect: the server listens on the address in BRIDGE_EMBEDDED_CONFIG")
	open := c.Embedded() && c.EmbeddedConfig == ""
	const noLogin = "has no effect: the embedded server requires no login without BRIDGE_EMBEDDED_CONFIG"
	doubt(open && c.NATSUser != "", "NATS_USER", noLogin)
	doubt(open && c.NATSCreds != "", "NATS_CREDS", noLogin)
	doubt(open && c.NATSNKey != "", "NATS_NKEY", noLogin)
	doubt(!c.Query && (c.NATSQueryCreds != "" || c.NATSQueryNKey != "" || c.NATSQueryUser != ""), "BRIDGE_QUERY",
		"is false: NATS_QUERY_ variables have no effect")
	doubt(c.NATSTLSFirst && c.Embedded(), "NATS_TLS_FIRST", "has no effect on the embedded server")
	doubt(c.Schedule == ScheduleFixed && c.TripStartWeight != 1, "BRIDGE_TRIP_START_WEIGHT",
		"has no effect: the schedule is fixed")
	doubt(c.Schedule == ScheduleFixed && len(c.Weights) > 0, "BRIDGE_WEIGHTS", "has no effect: the schedule is fixed")
	const short = 16
	doubt(c.HTTPToken != "" && len(c.HTTPToken) < short, "BRIDGE_HTTP_TOKEN",
		"is shorter than 16 characters: it may be guessed by anyone who can reach BRIDGE_HTTP_ADDR")
	doubt(c.HTTPAddr == "" && c.Pprof, "BRIDGE_PPROF", "has no effect: BRIDGE_HTTP_ADDR is set to nothing")
	for _, name := range collectors {
		doubt(strings.Contains(os.Getenv(name), "@"), name,
			"has a user or password, which OpenTelemetry does not send; use OTEL_EXPORTER_OTLP_HEADERS")
	}
	doubt(c.PollInterval/1000 > c.DevicesRefresh, "BRIDGE_DEVICES_REFRESH",
		"is less than a thousandth of BRIDGE_POLL_INTERVAL: most requests would read the device list")
	share := c.listShare()
	doubt(share > maxListShare, "BRIDGE_DEVICES_REFRESH",
		fmt.Sprintf("takes %.0f%% of PLASPY_RATE_LIMIT for reading the device list; polls get the rest", 100*min(share, 1)))
	return warnings
}

// maxListShare is the part of the request budget that the device list may take
// without a warning.
const maxListShare = 0.25

// listShare returns the part of the request budget that reading the device list,
// and the groups if they are needed, takes.
func (c Config) listShare() float64 {
	if c.RateLimit <= 0 || c.DevicesRefresh <= 0 {
		return 0
	}
	requests := 1.0
	if len(c.Groups) > 0 || c.EventGroups {
		requests++
	}
	return requests / c.DevicesRefresh.Minutes() / float64(c.RateLimit)
}

// sortFaults puts faults in the order of the settings table.
func sortFaults(faults Faults) {
	order := map[string]int{}
	for i, v := range Variables() {
		order[v.Name] = i
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return order[a.Variable] - order[b.Variable] })
}

// nearest returns the variable with the most similar name, and the edit distance.
func nearest(name string) (near string, distance int) {
	distance = len(name) + 1
	for _, v := range Variables() {
		if d := editDistance(name, v.Name); d < distance {
			near, distance = v.Name, d
		}
	}
	return near, distance
}

// editDistance is Levenshtein's, over bytes: names of variables are ASCII.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// minEventsBytes is the lowest limit of the events stream that makes sense.
const minEventsBytes = 1_000_000

// collectors are the variables with the URL of a collector.
var collectors = []string{
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
}

// headers are the variables with headers for a collector.
var headers = []string{
	"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
}

// tracing checks the OpenTelemetry variables that the table cannot describe.
// OpenTelemetry itself would log the value of a wrong one. They are checked even if
// tracing is off, so that a fault does not show up on the day when traces are needed.
func (k *checker) tracing() {
	for _, name := range collectors {
		k.collector(name, os.Getenv(name))
	}
	const pairs = "expected name=value, comma separated, values percent-encoded"
	for _, name := range headers {
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
