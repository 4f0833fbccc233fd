package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"plaspy-bridge/auth/redact"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
)

// ConfigError means that the configuration file is invalid. Its problems use fixed
// texts, because nats-server's own errors quote passwords and tokens of the file.
type ConfigError struct {
	Problems []string // such as "nats.conf:12:5: unknown field"
}

// Problem returns the error's text without the name of the variable.
func (e *ConfigError) Problem() string {
	return "is not a valid nats-server configuration: " + strings.Join(e.Problems, "; ") + " (nats-server -t -c FILE shows more, with the values)"
}

// Error returns the variable and its problems.
func (e *ConfigError) Error() string { return "BRIDGE_EMBEDDED_CONFIG " + e.Problem() }

// mostProblems bounds how many problems of one file are listed.
const mostProblems = 5

// load reads a configuration file. secrets are the texts in it that errors and log
// lines must not contain.
func load(name string) (opts *server.Options, secrets []string, err error) {
	if _, err := os.ReadFile(name); err != nil {
		return nil, nil, &ConfigError{[]string{"the file cannot be read: " + redact.FileError(err).Error()}}
	}
	values, err := conf.ParseFile(name)
	if err != nil {
		return nil, nil, &ConfigError{[]string{syntax(name, err.Error())}}
	}
	if opts, err = server.ProcessConfigFile(name); err != nil {
		return nil, nil, &ConfigError{meaning(err)}
	}
	return opts, texts(values), nil
}

var lineOf = regexp.MustCompile(`(?:on line |:)(\d+)`)

// syntax describes an error of the parser. Of its text it uses only the line number.
func syntax(name, text string) string {
	problem, position := "syntax error", filepath.Base(name)
	switch {
	case strings.HasPrefix(text, "variable reference cycle"):
		problem = "a variable refers to itself"
	case strings.HasPrefix(text, "variable reference") && strings.HasSuffix(text, "can not be found"):
		problem = "an undefined variable, in the file and in the environment"
	case strings.HasPrefix(text, "variable reference"):
		problem = "an environment variable with an invalid value (put double quotes inside the value)"
	case strings.HasPrefix(text, "error parsing include file"):
		return position + ": an included file cannot be read or is invalid"
	}
	// The parser quotes the file after the line's number.
	if m := lineOf.FindStringSubmatch(text); m != nil {
		position += ":" + m[1]
	}
	return position + ": " + problem
}

// kinds maps the prefixes of nats-server's errors to fixed texts.
var kinds = []struct{ reason, problem string }{
	{"unknown field", "unknown field"},
	{"interface conversion", "a value of another type (text that looks like a number or true needs double quotes, inside an environment variable too)"},
	{"Duplicate user", "a duplicate user"},
	{"Duplicate account", "a duplicate account"},
	{"error parsing leafnode url", "an invalid leaf node URL (special characters in a password are percent-encoded)"},
	{"error parsing route url", "an invalid route URL (special characters in a password are percent-encoded)"},
	{"error parsing gateway url", "an invalid gateway URL (special characters in a password are percent-encoded)"},
	{"Not a valid public nkey", "not a public nkey"},
	{"error parsing tls", "an unusable TLS block"},
}

// meaning describes the errors of a file with valid syntax.
func meaning(err error) []string {
	all := []error{err}
	if several, ok := err.(interface{ Errors() []error }); ok {
		all = several.Errors()
	}
	var problems []string
	for _, one := range all {
		file, reason := "", one.Error()
		if at, ok := one.(interface{ Source() string }); ok {
			reason = strings.TrimPrefix(reason, at.Source()+": ")
			file = filepath.Base(at.Source()) + ": "
		}
		problem := "a value that nats-server does not accept"
		for _, k := range kinds {
			if strings.HasPrefix(reason, k.reason) {
				problem = k.problem
			}
		}
		problems = append(problems, file+problem)
	}
	slices.Sort(problems)
	problems = slices.Compact(problems)
	if len(problems) > mostProblems {
		problems = append(problems[:mostProblems], fmt.Sprintf("%d more", len(problems)-mostProblems))
	}
	return problems
}

// shortest is the minimum length of a text that may be a secret.
const shortest = 4

// texts returns every text in a configuration that may be a secret. The longest come
// first, so that replacing a shorter text does not split a longer one.
func texts(value any) []string {
	var all []string
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			if !public[strings.ToLower(key)] {
				all = append(all, texts(member)...)
			}
		}
	case []any:
		for _, element := range v {
			all = append(all, texts(element)...)
		}
	case string:
		if len(v) >= shortest {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(all)
}

// public are the keys with values that are no secrets and help to understand an error.
var public = map[string]bool{
	"listen": true, "host": true, "store_dir": true, "server_name": true, "name": true, "user": true, "username": true, "account": true,
	"cert_file": true, "key_file": true, "ca_file": true, "system_account": true, "cluster_name": true, "domain": true, "jetstream_domain": true,
	"publish": true, "subscribe": true, "allow": true, "deny": true, "exports": true, "imports": true, "http": true, "https": true,
}

var userInfo = regexp.MustCompile(`://[^\s/]*@`)

// masked returns a text of nats-server without the secrets of its configuration.
func masked(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "[...]")
	}
	return userInfo.ReplaceAllString(text, "://[...]@")
}

var (
	reference = regexp.MustCompile(`\$([A-Za-z_][A-Za-z0-9_]*)`)
	including = regexp.MustCompile(`(?m)^\s*include\s+['"]?([^'"\s;]+)`)
)

// Variables returns the names of the variables that a configuration file and its
// included files refer to. It skips unreadable files.
func Variables(name string) []string {
	const depth = 8
	var names []string
	var read func(name string, depth int)
	read = func(name string, depth int) {
		data, err := os.ReadFile(name)
		if err != nil || depth == 0 {
			return
		}
		for _, m := range reference.FindAllSubmatch(data, -1) {
			names = append(names, string(m[1]))
		}
		for _, m := range including.FindAllSubmatch(data, -1) {
			path := string(m[1])
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(name), path)
			}
			read(path, depth-1)
		}
	}
	read(name, depth)
	slices.Sort(names)
	return slices.Compact(names)
}
