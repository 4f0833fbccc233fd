package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of types, as the settings table has them.
const (
	typeInt      = "whole number"
	typeDuration = "duration"
	typeList     = "list"
	typeText     = "text"
)

// Variable describes one environment variable. All of it comes from the tags of
// [Config].
type Variable struct {
	Name     string
	Type     string // in words: duration, whole number, file, ...
	Default  string // as one would write it; empty: none
	Meaning  string // one sentence without its full stop
	Section  string // heading of the group it belongs to
	Required bool
	Secret   bool
	Min, Max string   // bounds of a number or duration; empty: none
	OneOf    []string // the words allowed; nil: any
	Empty    string   // what set to nothing means, where that is not the default

	file  bool // must be readable
	index int  // of the field in Config
}

// Variables returns every variable in the order of the settings table. The slice
// is the caller's.
func Variables() []Variable { return slices.Clone(variables()) }

var variables = sync.OnceValue(func() []Variable {
	t := reflect.TypeFor[Config]()
	all := make([]Variable, t.NumField())
	section := ""
	for i := range all {
		f := t.Field(i)
		if s := f.Tag.Get("section"); s != "" {
			section = s
		}
		all[i] = Variable{
			Name: f.Tag.Get("envconfig"), Default: f.Tag.Get("default"), Meaning: f.Tag.Get("desc"), Section: section,
			Required: f.Tag.Get("required") != "",
			Secret:   f.Type == reflect.TypeFor[Secret](),
			Min:      f.Tag.Get("min"), Max: f.Tag.Get("max"), Empty: f.Tag.Get("empty"),
			file: f.Tag.Get("file") != "", index: i,
		}
		if words := f.Tag.Get("oneof"); words != "" {
			all[i].OneOf = strings.Split(words, ",")
		}
		all[i].Type = typeName(f, all[i])
	}
	return all
})

// typeName names a field's type for people.
func typeName(f reflect.StructField, v Variable) string {
	kind := f.Tag.Get("kind")
	switch f.Type {
	case reflect.TypeFor[time.Duration]():
		return typeDuration
	case reflect.TypeFor[url.URL](), reflect.TypeFor[Endpoint]():
		return "URL"
	case reflect.TypeFor[Servers]():
		return "list of URLs"
	case reflect.TypeFor[Secret]():
		return "secret"
	}
	switch {
	case kind != "":
		return kind
	case v.file:
		return "file"
	case v.OneOf != nil:
		return strings.Join(v.OneOf, " or ")
	}
	switch f.Type.Kind() {
	case reflect.Int:
		return typeInt
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return typeList
	default:
		return typeText
	}
}

// want says what would be right.
func (v Variable) want() string {
	want := "want "
	switch {
	case v.OneOf != nil:
		want += strings.Join(v.OneOf, " or ")
	case v.Type == typeDuration:
		want += "a duration with its unit, such as 90s, 5m or 24h"
	case v.Type == "URL":
		want += "a URL such as " + v.Default
	case strings.Contains(v.Type, " or "):
		want += v.Type
	default:
		want += "a " + v.Type
	}
	return want + v.bounds()
}

// bounds puts Min and Max in words.
func (v Variable) bounds() string {
	switch {
	case v.Min != "" && v.Max != "":
		return ", " + v.Min + " to " + v.Max
	case v.Min != "" && v.Min != "0s":
		return ", at least " + v.Min
	case v.Min != "":
		return ", not negative"
	default:
		return ""
	}
}

// meaning is the whole sentence of the tables: meaning, bounds.
func (v Variable) meaning() string {
	m := v.Meaning
	if b := v.bounds(); b != "" && v.Min != "0s" {
		m += " (" + strings.TrimPrefix(b, ", ") + ")"
	}
	if v.Required {
		m += "; required"
	}
	return m
}

// Setting is a variable and the value in force.
type Setting struct {
	Variable
	Value   string // secrets masked; empty where Problem is not
	Problem string // what is wrong with it
	Set     bool   // by the environment; else it is the default
}

// Settings returns every variable with c's value of it, secrets masked. What
// err, which came with c from [Load], calls wrong has the problem instead of the
// value: a path that does not exist may be a key put into the wrong variable.
func (c Config) Settings(err error) []Setting {
	v := reflect.ValueOf(c)
	problems := map[string]string{}
	if faults, ok := errors.AsType[Faults](err); ok {
		for _, f := range faults {
			problems[f.Variable] = strings.TrimPrefix(problems[f.Variable]+"; "+f.Problem, "; ")
		}
	}
	var settings []Setting
	for _, variable := range Variables() {
		value, set := os.LookupEnv(variable.Name)
		setting := Setting{
			Variable: variable,
			Problem:  problems[variable.Name],
			Set:      set && (value != "" || variable.Empty != ""),
		}
		if setting.Problem == "" {
			setting.Value = show(v.Field(variable.index).Interface())
		}
		settings = append(settings, setting)
	}
	return settings
}

// show spells a value as one would write it in the environment.
func show(value any) string {
	switch v := value.(type) {
	case []string:
		return strings.Join(v, ",")
	case url.URL:
		return maskURL(v.String()) // a key may have been put into it by mistake
	case time.Duration:
		return showDuration(v)
	case slog.Level:
		return strings.ToLower(v.String())
	default:
		return fmt.Sprint(v)
	}
}

// showDuration spells a duration without the zero parts: 168h, not 168h0m0s.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// WriteSettings writes the settings table of the README, as Markdown.
func WriteSettings(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| variable | type | default | meaning |\n|---|---|---|---|\n")
	for _, v := range Variables() {
		value := ""
		if v.Default != "" {
			value = "`" + v.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.Name, v.Type, value, strings.ReplaceAll(v.meaning(), "|", `\|`))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write settings table: %w", err)
	}
	return nil
}

// WriteEnvExample writes an environment file with every variable: what must be
// set first in line, the others commented out with their defaults. systemd and
// docker both read it: no quotes, no comment behind a value.
func WriteEnvExample(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Settings of plaspy-bridge. What is commented out has the value shown.\n# Put no quotes round values: docker would take them as part of the value.\n")
	section := ""
	for _, v := range Variables() {
		if v.Section != section {
			section = v.Section
			fmt.Fprintf(&b, "\n# ---- %s ----\n", section)
		}
		comment := "#"
		if v.Required || v.Name == "PLASPY_API_KEY" {
			comment = ""
		}
		fmt.Fprintf(&b, "\n# %s: %s.\n%s%s=%s\n", capital(v.Type), v.meaning(), comment, v.Name, v.Default)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write environment example: %w", err)
	}
	return nil
}

// capital returns s, which begins with an ASCII letter, with that letter upper-case.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
