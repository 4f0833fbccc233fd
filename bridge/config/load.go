package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Fault is one thing wrong with one environment variable. Problem never quotes
// what the variable holds as text: a secret may have been put in the wrong one.
type Fault struct {
	Variable string
	Problem  string // what is wrong and what would be right
}

// Faults is every fault of a configuration, as an error. The process exits with
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

// Warning is something about one environment variable that is probably not
// meant, but that the bridge can run with.
type Warning struct {
	Variable string
	Problem  string
}

// String returns the warning as one line.
func (w Warning) String() string { return w.Variable + " " + w.Problem }

// Load fills a Config from the process's environment and checks all of it. The
// error is nil or [Faults] with everything that is wrong; the Config is usable
// even then, with the default in place of each value that could not be read.
//
// A variable that is set to nothing counts as not set, as it does in a compose
// file or a chart that passes on what it has; BRIDGE_HTTP_ADDR alone has a
// meaning for it.
//
// Commands that do not need all of it name what does not concern them: faults of
// the variables that begin with one of the prefixes in except are left out. So
// Load("PLASPY_") is for one that talks to NATS only.
func Load(except ...string) (Config, []Warning, error) {
	var c Config
	v := reflect.ValueOf(&c).Elem()
	var faults Faults
	wrong := map[string]bool{}
	for _, variable := range Variables() {
		if problem := readField(v.Field(variable.index), variable); problem != "" {
			faults = append(faults, Fault{variable.Name, problem})
			wrong[variable.Name] = true
		}
	}
	c.normalize()
	for _, fault := range c.check() {
		// A default stands where a value could not be read: what the checks say
		// of it is not about anything the operator wrote.
		if !wrong[fault.Variable] {
			faults = append(faults, fault)
		}
	}
	faults = slices.DeleteFunc(faults, func(f Fault) bool {
		return slices.ContainsFunc(except, func(p string) bool { return strings.HasPrefix(f.Variable, p) })
	})
	sortFaults(faults)
	warnings := append(unknown(os.Environ()), c.doubts()...)
	if len(faults) > 0 {
		return c, warnings, faults
	}
	return c, warnings, nil
}

// Validate reports everything that is wrong with c as [Faults], or nil. Load has
// called it; it is for a Config that was changed or made by hand.
func (c Config) Validate() error {
	if faults := c.check(); len(faults) > 0 {
		sortFaults(faults)
		return faults
	}
	return nil
}

// readField has envconfig read one variable into its field and tells what is
// wrong with it, if anything. One field at a time, because envconfig 1.4 stops
// at the first mistake; in words of our own, because its error quotes the value.
func readField(field reflect.Value, v Variable) (problem string) {
	key := v.Name
	if value, set := os.LookupEnv(key); !set || value == "" && v.Empty == "" {
		// envconfig takes a variable set to nothing for a value. No environment
		// has a name with an equals sign, so this one gets the default.
		key += "="
	} else if field.CanInt() && v.Type == typeInt && len(value) > 1 && value[0] == '0' {
		return "has leading zeros; " + v.want() // envconfig would read 010 as eight
	}
	one := func(key string) error {
		tag := fmt.Sprintf("envconfig:%q default:%q", key, v.Default)
		holder := reflect.New(reflect.StructOf([]reflect.StructField{{
			Name: "Value", Type: field.Type(), Tag: reflect.StructTag(tag),
		}}))
		if err := envconfig.Process("", holder.Interface()); err != nil {
			return err
		}
		field.Set(holder.Elem().Field(0))
		return nil
	}
	if one(key) == nil {
		return ""
	}
	if err := one(v.Name + "="); err != nil {
		panic(fmt.Sprintf("default of %s: %v", v.Name, err)) // a mistake in a tag
	}
	return "cannot be understood; " + v.want()
}

// normalize brings values that may be spelt in several ways to one.
func (c *Config) normalize() {
	c.BaseURL.Path = strings.TrimRight(c.BaseURL.Path, "/")
	c.BaseURL.RawPath = strings.TrimRight(c.BaseURL.RawPath, "/")
	c.normalizeTracing()
	c.APIKey = Secret(strings.TrimRight(string(c.APIKey), "\r\n"))
	for _, entries := range []*[]string{&c.Devices, &c.DevicesExclude, &c.Groups, &c.IgnoreFields} {
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

// isServiceLink reports whether Kubernetes has set a variable, as it does in
// every pod for every service, here for one named bridge or plaspy-something.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// unknown warns of variables that look as if they were meant for the bridge but
// are none of its own. NATS_ is shared with other programs: only what is one
// letter off is worth a word.
func unknown(environ []string) []Warning {
	var warnings []Warning
	known := map[string]Variable{}
	for _, v := range Variables() {
		known[v.Name] = v
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
		case isServiceLink(name, value), !ours && (!strings.HasPrefix(name, "NATS_") || distance > 1):
		case distance <= max(2, len(name)/4):
			warnings = append(warnings, Warning{name, "is not a variable of the bridge; did you mean " + near + "?"})
		default:
			warnings = append(warnings, Warning{name, "is not a variable of the bridge"})
		}
	}
	slices.SortFunc(warnings, func(a, b Warning) int { return strings.Compare(a.Variable, b.Variable) })
	return warnings
}

// wrapped tells of quotes and white space that came along with a value: docker's
// --env-file and Kubernetes keep them, shells and systemd do not.
func wrapped(value string) string {
	if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return "is wrapped in quotes, which are taken as part of the value"
	}
	if strings.TrimSpace(value) != value {
		return "begins or ends with white space, which is taken as part of the value"
	}
	return ""
}
