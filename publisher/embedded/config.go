package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
)

// ConfigError means that the configuration file is wrong. Its problems say where
// and of what kind, in fixed words: nats-server's own errors quote the file, and
// with it the passwords and tokens in it.
type ConfigError struct {
	Problems []string // such as "nats.conf:12:5: unknown field"
}

// Problem is what follows the name of the variable in an error or a finding.
func (e *ConfigError) Problem() string {
	return "is not a configuration that nats-server takes: " + strings.Join(e.Problems, "; ") + " (nats-server -t -c FILE shows more, with the values)"
}

// Error returns the variable and its problem.
func (e *ConfigError) Error() string { return "BRIDGE_EMBEDDED_CONFIG " + e.Problem() }

// mostProblems bounds how many problems of one file are listed.
const mostProblems = 5

// load reads a configuration file. secrets are the texts in it that must not be
// shown.
func load(name string) (opts *server.Options, secrets []string, err error) {
	if _, err := os.ReadFile(name); err != nil {
		return nil, nil, &ConfigError{[]string{"the file cannot be read: " + cause(err)}}
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

// cause is a file error without its path, which may be a secret that was put into
// the wrong variable.
func cause(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return "unknown reason"
}

var lineOf = regexp.MustCompile(`(?:on line |:)(\d+)`)

// syntax describes an error of the parser: the line is all that it is taken for.
func syntax(name, text string) string {
	problem, where := "syntax error", filepath.Base(name)
	switch {
	case strings.HasPrefix(text, "variable reference cycle"):
		problem = "a variable refers to itself"
	case strings.HasPrefix(text, "variable reference") && strings.HasSuffix(text, "can not be found"):
		problem = "a variable that is neither in the file nor in the environment"
	case strings.HasPrefix(text, "variable reference"):
		problem = "a variable whose value in the environment cannot be understood (put double quotes inside the value)"
	case strings.HasPrefix(text, "error parsing include file"):
		return where + ": an included file cannot be read or understood"
	}
	// The parser quotes the file after the line's number.
	if m := lineOf.FindStringSubmatch(text); m != nil {
		where += ":" + m[1]
	}
	return where + ": " + problem
}

// kinds are the beginnings of nats-server's reasons, and the words for them.
var kinds = []struct{ reason, problem string }{
	{"unknown field", "unknown field"},
	{"interface conversion", "a value of another type (text that looks like a number or true needs double quotes, inside an environment variable too)"},
	{"Duplicate user", "a user that is there twice"},
	{"Duplicate account", "an account that is there twice"},
	{"error parsing leafnode url", "a leaf node's URL that is none (special characters in a password are percent-encoded)"},
	{"error parsing route url", "a route that is no URL (special characters in a password are percent-encoded)"},
	{"error parsing gateway url", "a gateway's URL that is none (special characters in a password are percent-encoded)"},
	{"Not a valid public nkey", "not a public nkey"},
	{"error parsing tls", "a TLS block that cannot be used"},
}

// meaning describes the errors of a file whose syntax is right.
func meaning(err error) []string {
	all := []error{err}
	if several, ok := err.(interface{ Errors() []error }); ok { //nolint:errorlint // nats-server does not wrap it
		all = several.Errors()
	}
	var problems []string
	for _, one := range all {
		where, reason := "", one.Error()
		if at, ok := one.(interface{ Source() string }); ok { //nolint:errorlint // likewise
			reason = strings.TrimPrefix(reason, at.Source()+": ")
			where = filepath.Base(at.Source()) + ": "
		}
		problem := "a value that nats-server does not take here"
		for _, k := range kinds {
			if strings.HasPrefix(reason, k.reason) {
				problem = k.problem
			}
		}
		problems = append(problems, where+problem)
	}
	slices.Sort(problems)
	problems = slices.Compact(problems)
	if len(problems) > mostProblems {
		problems = append(problems[:mostProblems], fmt.Sprintf("%d more", len(problems)-mostProblems))
	}
	return problems
}

// shortest is the length from which a text of the file may be a secret.
const shortest = 4

// texts returns every text in a configuration that may be a secret, the longest
// first, so that none is left because a part of it went before.
func texts(value any) []string {
	var all []string
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			if !harmless[strings.ToLower(key)] {
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

// harmless are the keys whose text helps to understand an error.
var harmless = map[string]bool{
	"listen": true, "host": true, "store_dir": true, "server_name": true, "name": true, "user": true, "username": true, "account": true,
	"cert_file": true, "key_file": true, "ca_file": true, "system_account": true, "cluster_name": true, "domain": true, "jetstream_domain": true,
	"publish": true, "subscribe": true, "allow": true, "deny": true, "exports": true, "imports": true, "http": true, "https": true,
}

var userInfo = regexp.MustCompile(`://[^\s/]*@`)

// masked is a text of nats-server's without the secrets of its configuration.
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

// Variables returns the names of the variables that a configuration file and the
// files it includes refer to. What cannot be read counts as empty.
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
