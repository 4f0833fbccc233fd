package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Variables returns every variable in the order of the settings table. The slice
// is the caller's.
func Variables() []Variable { return slices.Clone(variables()) }

var variables = sync.OnceValue(func() []Variable {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		fields[f.Tag.Get("envconfig")] = f
	}
	var all []Variable
	for _, s := range table {
		for _, v := range s.variables {
			v.Section, v.Secret, v.field = s.heading, v.Type == typeSecret, -1
			if f, ok := fields[v.Name]; ok {
				v.field, v.Default = f.Index[0], f.Tag.Get("default")
			}
			if v.Type == "" {
				v.Type = strings.Join(v.OneOf, " or ")
			}
			all = append(all, v)
		}
	}
	return all
})

// defaultOf returns the default of a variable.
func defaultOf(name string) string {
	all := Variables()
	return all[slices.IndexFunc(all, func(v Variable) bool { return v.Name == name })].Default
}

// parse reads a text as the value of v, as envconfig does. It returns the number
// that is compared with the bounds; of a duration, its nanoseconds.
func (v Variable) parse(text string) (number float64, err error) {
	switch v.Type {
	case typeBool:
		_, err = strconv.ParseBool(text)
	case typeLevel:
		err = new(slog.Level).UnmarshalText([]byte(text))
	case typeURL:
		_, err = url.Parse(text)
	case typeDuration:
		var d time.Duration
		d, err = time.ParseDuration(text)
		number = float64(d)
	case typeInt:
		var n int
		n, err = strconv.Atoi(text)
		number = float64(n)
		if len(text) > 1 && text[0] == '0' {
			err = errLeadingZeros // envconfig would read 010 as eight
		}
	case typeNumber:
		number, err = strconv.ParseFloat(text, 64)
	}
	return number, err
}

var errLeadingZeros = errors.New("has leading zeros")

// problem returns the fault of a text as a value of v, or "". An empty text has no
// fault. It never quotes text that may be secret.
func (v Variable) problem(text string) string {
	if text == "" {
		return ""
	}
	number, err := v.parse(text)
	fold := func(word string) bool { return word == text || v.field < 0 && strings.EqualFold(word, text) }
	switch {
	case errors.Is(err, errLeadingZeros):
		return err.Error() + "; " + v.want()
	case err != nil:
		return "cannot be parsed; " + v.want()
	case v.OneOf != nil && !slices.ContainsFunc(v.OneOf, fold):
		return "has an unknown value; " + v.want()
	case v.Type == typeFile:
		if err := readable(text); err != nil {
			return "names a file that cannot be read: " + err.Error()
		}
	// This form also rejects NaN.
	case v.Min != "" && !(number >= bound(v.Min) && (v.Max == "" || number <= bound(v.Max))):
		return "is " + text + "; " + v.want()
	}
	return ""
}

// bound returns Min or Max as a number; of a duration, its nanoseconds.
func bound(text string) float64 {
	if d, err := time.ParseDuration(text); err == nil {
		return float64(d)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic("bound " + text) // a mistake in the table
	}
	return n
}

// want describes the valid values.
func (v Variable) want() string {
	want := "expected "
	switch {
	case v.OneOf != nil:
		want += strings.Join(v.OneOf, " or ")
	case v.Type == typeDuration:
		want += "a duration with its unit, such as 90s, 5m or 24h"
	case v.Type == typeURL:
		want += "a URL such as " + cmp.Or(v.Default, "http://localhost:4318")
	case strings.Contains(v.Type, " or "):
		want += v.Type
	default:
		want += "a " + v.Type
	}
	return want + v.bounds()
}

// notNegative is not in the tables, because it is obvious there.
const notNegative = "not negative"

// bounds returns Min and Max in words.
func (v Variable) bounds() string {
	switch {
	case v.Min != "" && v.Max != "":
		return ", " + v.Min + " to " + v.Max
	case v.Min != "" && bound(v.Min) > 0:
		return ", at least " + v.Min
	case v.Min != "":
		return ", " + notNegative
	default:
		return ""
	}
}

// meaning returns the text for the tables: the meaning and the bounds.
func (v Variable) meaning() string {
	m := v.Meaning
	if b := strings.TrimPrefix(v.bounds(), ", "); b != "" && b != notNegative {
		m += " (" + b + ")"
	}
	if v.Required {
		m += "; required"
	}
	return m
}

// Setting is a variable and the value in force.
type Setting struct {
	Variable
	Value   string // secrets masked; empty if there is a Problem
	Problem string // the fault of the value, or ""
	Set     bool   // set by the environment; otherwise Value is the default
}

// Settings returns every variable with its value in c, secrets masked. err is the
// error that [Load] returned with c. A variable with a fault has the problem instead
// of the value, because a path that does not exist may be a misplaced key.
func (c Config) Settings(err error) []Setting {
	value := reflect.ValueOf(c)
	problems := map[string]string{}
	if faults, ok := errors.AsType[Faults](err); ok {
		for _, f := range faults {
			problems[f.Variable] = strings.TrimPrefix(problems[f.Variable]+"; "+f.Problem, "; ")
		}
	}
	var settings []Setting
	for _, v := range Variables() {
		text, set := os.LookupEnv(v.Name)
		setting := Setting{Variable: v, Problem: problems[v.Name], Set: set && (text != "" || v.Empty != "")}
		switch {
		case setting.Problem != "":
		case v.field >= 0:
			setting.Value = show(value.Field(v.field).Interface())
		case v.Secret:
			setting.Value = Secret(text).String()
		case v.Type == typeURL && text != "":
			setting.Value = MaskURL(text)
		default:
			setting.Value = cmp.Or(text, v.Default)
		}
		settings = append(settings, setting)
	}
	return settings
}

// show formats a value as it is written in the environment.
func show(value any) string {
	switch v := value.(type) {
	case []string:
		return strings.Join(v, ",")
	case url.URL:
		return MaskURL(v.String()) // it may contain a key by mistake
	case time.Duration:
		return showDuration(v)
	case slog.Level:
		return strings.ToLower(v.String())
	default:
		return fmt.Sprint(v)
	}
}

// showDuration formats a duration without zero parts: 168h, not 168h0m0s.
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

// WriteSettings writes the settings table of deploy/docs/settings.md, as Markdown.
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

// WriteEnvExample writes an environment file with every variable. Those that
// must be set are at the beginning of a line, the others commented out with
// their defaults. systemd and docker both read it: no quotes, no comment behind
// a value.
func WriteEnvExample(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Settings of plaspy-bridge. A variable that is commented out has the value shown.\n" +
		"# Put no quotes round values: docker would take them as part of the value.\n")
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
