package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"plaspy-bridge/publisher/embedded"

	"github.com/kelseyhightower/envconfig"
)

// Fault is one error in one environment variable. Problem never quotes text, because
// a secret may have been put into the wrong variable.
type Fault struct {
	Variable string
	Problem  string // the error, and the expected value
}

// Faults is an error with all faults of a configuration. The process exits with
// status 2 for it.
type Faults []Fault

// Error returns one line per fault.
func (f Faults) Error() string {
	var b strings.Builder
	b.WriteString("the configuration is wrong:")
	for _, fault := range f {
		fmt.Fprintf(&b, "\n  %s %s", fault.Variable, fault.Problem)
	}
	return b.String()
}

// blame reports whether the variable has a fault.
func (f Faults) blame(variable string) bool {
	return slices.ContainsFunc(f, func(f Fault) bool { return f.Variable == variable })
}

// Warning describes a value of one environment variable that is valid but probably
// not intended.
type Warning struct {
	Variable string
	Problem  string
}

// String returns the warning as one line.
func (w Warning) String() string { return w.Variable + " " + w.Problem }

// Load fills a Config from the process's environment and checks it. The error is nil
// or [Faults] with all faults. The Config is usable even then, with the default in
// place of each value that cannot be parsed.
//
// A variable that is set to nothing counts as not set, so that a compose file or a
// chart can pass on variables that may be unset. BRIDGE_HTTP_ADDR is an exception.
//
// Faults of variables with one of the given prefixes are left out, for commands that
// do not need all settings. Load("PLASPY_") is for a command that only uses NATS.
func Load(except ...string) (Config, []Warning, error) {
	var c Config
	var faults Faults
	var unusable []string
	for _, v := range Variables() {
		text, set := os.LookupEnv(v.Name)
		if problem := v.problem(text); problem != "" {
			faults = append(faults, Fault{v.Name, problem})
		}
		if _, err := v.parse(text); set && (text == "" && v.Empty == "" || text != "" && err != nil) {
			unusable = append(unusable, v.Name)
		}
	}
	if err := fill(&c, unusable); err != nil {
		faults = append(faults, *err)
	}
	c.normalize()
	unread := slices.Clone(faults)
	invalid, _ := errors.AsType[Faults](c.Validate())
	for _, fault := range invalid {
		// Ignore faults of a default that replaced a bad value, because the operator
		// did not set it.
		if !unread.blame(fault.Variable) {
			faults = append(faults, fault)
		}
	}
	faults = slices.DeleteFunc(faults, func(f Fault) bool {
		return slices.ContainsFunc(except, func(p string) bool { return strings.HasPrefix(f.Variable, p) })
	})
	sortFaults(faults)
	warnings := append(c.unknown(os.Environ()), c.doubts()...)
	if len(faults) > 0 {
		return c, warnings, faults
	}
	return c, warnings, nil
}

// fill fills c with envconfig. envconfig accepts an empty variable as a value and
// stops at the first one that it cannot parse. So empty and unusable variables are
// removed from the environment during the call, and their defaults apply.
func fill(c *Config, unusable []string) *Fault {
	for _, name := range unusable {
		text := os.Getenv(name)
		_ = os.Unsetenv(name)
		defer func() { _ = os.Setenv(name, text) }()
	}
	err := envconfig.Process("", c)
	if parse, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return &Fault{parse.KeyName, "cannot be parsed"} // its own text quotes the value
	}
	return nil
}

// normalize reduces values that may be spelt in several ways to one spelling.
func (c *Config) normalize() {
	c.BaseURL.Path = strings.TrimRight(c.BaseURL.Path, "/")
	c.BaseURL.RawPath = strings.TrimRight(c.BaseURL.RawPath, "/")
	c.APIKey = Secret(strings.TrimRight(string(c.APIKey), "\r\n"))
	for _, entries := range []*[]string{
		&c.Devices, &c.DevicesExclude, &c.Groups, &c.IgnoreFields, &c.InboundForms, &c.Weights,
	} {
		*entries = list(*entries)
	}
	if c.ReplicaID == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unnamed"
		}
		c.ReplicaID = fmt.Sprintf("%s-%d", illegalInName.ReplaceAllString(host, "-"), os.Getpid())
	}
}

// list returns entries without white space around them and without empty ones.
func list(entries []string) []string {
	var kept []string
	for _, entry := range entries {
		if entry = strings.TrimSpace(entry); entry != "" {
			kept = append(kept, entry)
		}
	}
	return kept
}

var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// isServiceLink reports whether Kubernetes has set a variable for a service named
// bridge or plaspy-something. It does so in every pod for every service.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// unknown returns warnings about variables that the bridge does not know although
// their names look like its own. Other programs use NATS_ too, so such a name is
// reported only if one letter differs from a known one.
func (c Config) unknown(environ []string) []Warning {
	var warnings []Warning
	known := map[string]Variable{}
	for _, v := range Variables() {
		known[v.Name] = v
	}
	var referred []string // used by the embedded server's configuration, as in deploy/nats.conf
	if c.EmbeddedConfig != "" {
		referred = embedded.Variables(c.EmbeddedConfig)
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if v, ok := known[name]; ok {
			if problem := wrapped(value); problem != "" && v.Type != typeList {
				warnings = append(warnings, Warning{name, problem})
			}
			continue
		}
		near, distance := nearest(name)
		ours := strings.HasPrefix(name, "BRIDGE_") || strings.HasPrefix(name, "PLASPY_")
		switch {
		case isServiceLink(name, value), slices.Contains(referred, name):
		case !ours && (!strings.HasPrefix(name, "NATS_") || distance > 1):
		case distance <= max(2, len(name)/4):
			warnings = append(warnings, Warning{name, "is not a variable of the bridge; did you mean " + near + "?"})
		default:
			warnings = append(warnings, Warning{name, "is not a variable of the bridge"})
		}
	}
	slices.SortFunc(warnings, func(a, b Warning) int { return strings.Compare(a.Variable, b.Variable) })
	return warnings
}

// wrapped returns a problem if quotes or white space around a value are part of it.
// docker's --env-file and Kubernetes keep them; shells and systemd do not.
func wrapped(value string) string {
	if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return "is wrapped in quotes, which are taken as part of the value"
	}
	if strings.TrimSpace(value) != value {
		return "begins or ends with white space, which is taken as part of the value"
	}
	return ""
}
