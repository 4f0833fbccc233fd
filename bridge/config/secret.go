package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"plaspy-bridge/auth/redact"
)

// Secret is a string that only [Secret.Reveal] shows:
// not through any fmt verb, encoding/json or slog, alone or inside a struct.
// The empty Secret is shown as empty, so that "not set" can be recognised. Do not key a
// map with it: encoding/json writes a key's bytes without asking.
type Secret string

// Reveal returns the secret itself, for the one place that has to send it.
func (s Secret) Reveal() string { return string(s) }

// String returns a mask, or nothing if the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redact.Placeholder
}

// GoString masks %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format masks every verb: without it %x and %d would print the bytes.
func (s Secret) Format(f fmt.State, verb rune) { format(f, verb, s) }

// MarshalText masks encodings; slog's JSON handler uses it for a struct's fields,
// for which LogValue is not called.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue masks the secret as a log attribute.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Servers is a comma-separated list of NATS server URLs. It shows itself with
// user names, passwords and tokens masked, like [Secret], because such a URL may
// carry them.
type Servers string

// Reveal returns the list as it was given, credentials included, in the form
// that nats.Connect takes.
func (s Servers) Reveal() string { return strings.Join(s.List(), ",") }

// List returns the servers one by one, credentials included, without white
// space and empty entries.
func (s Servers) List() []string { return list(strings.Split(string(s), ",")) }

// String returns the list with the text before an @ masked.
func (s Servers) String() string {
	servers := s.List()
	for i, server := range servers {
		if i > 0 && strings.Contains(server, "@") && !strings.Contains(server, "://") {
			return redact.Placeholder // perhaps the rest of a password with a comma in it
		}
	}
	for i, server := range servers {
		servers[i] = MaskURL(server)
	}
	return strings.Join(servers, ",")
}

// GoString masks %#v.
func (s Servers) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format masks every verb.
func (s Servers) Format(f fmt.State, verb rune) { format(f, verb, s) }

// MarshalText masks encodings.
func (s Servers) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue masks the list as a log attribute.
func (s Servers) LogValue() slog.Value { return slog.StringValue(s.String()) }

// format writes v's own text, quoted if the verb asks for that and
// padded as the verb asks, and never in another representation of the bytes.
func format(f fmt.State, verb rune, v fmt.Stringer) {
	switch {
	case verb == 'q', verb == 'v' && f.Flag('#'):
		_, _ = fmt.Fprintf(f, "%q", v.String())
	case verb == 's', verb == 'v':
		_, _ = fmt.Fprintf(f, fmt.FormatString(f, 's'), v.String())
	default:
		_, _ = io.WriteString(f, v.String())
	}
}

// schemes are those of URLs that a Config holds.
var schemes = []string{"nats", "tls", "ws", "wss", "http", "https"}

// MaskURL returns a URL without its user and password. A text that does not look
// like a URL may hold a password anywhere, for instance one with a # or a / in it,
// and is replaced by the mask.
func MaskURL(raw string) string {
	full := raw
	if !strings.Contains(raw, "://") {
		full = "nats://" + raw
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || !slices.Contains(schemes, u.Scheme) {
		return redact.Placeholder
	}
	if !strings.Contains(raw, "@") {
		return raw
	}
	if u.User == nil || strings.Contains(u.Path, "@") {
		return redact.Placeholder
	}
	return u.Scheme + "://" + redact.Placeholder + "@" + u.Host + u.EscapedPath()
}
