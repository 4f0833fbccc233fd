package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"plaspy-bridge/bridge/config"
)

func TestSecretShows(t *testing.T) {
	secret := config.Secret("s3cret")
	holder := struct{ Key config.Secret }{secret}
	tests := []struct {
		name      string
		got, want string
	}{
		{"v", fmt.Sprintf("%v", secret), "[redacted]"},
		{"plus v", fmt.Sprintf("%+v", holder), "{Key:[redacted]}"},
		{"sharp v", fmt.Sprintf("%#v", secret), `"[redacted]"`},
		{"s padded", fmt.Sprintf("%12s|", secret), "  [redacted]|"},
		{"q", fmt.Sprintf("%q", secret), `"[redacted]"`},
		{"x", fmt.Sprintf("%x", secret), "[redacted]"},
		{"d", fmt.Sprintf("%d", secret), "[redacted]"},
		{"pointer", fmt.Sprintf("%v", &holder), "&{[redacted]}"},
		{"empty", fmt.Sprintf("%v", config.Secret("")), ""},
		{"error", fmt.Errorf("with %v", secret).Error(), "with [redacted]"},
		{"String", secret.String(), "[redacted]"},
		{"GoString", secret.GoString(), `"[redacted]"`},
		{"Reveal", secret.Reveal(), "s3cret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %s, want %s", tt.got, tt.want)
			}
		})
	}
	encoded, err := json.Marshal(map[string]any{"struct": holder, "list": []config.Secret{secret}})
	if err != nil || strings.Contains(string(encoded), "s3cret") {
		t.Errorf("JSON: %s, %v", encoded, err)
	}
}

func TestSecretInLogs(t *testing.T) {
	for name, handler := range map[string]func(*strings.Builder) slog.Handler{
		"text": func(b *strings.Builder) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *strings.Builder) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			secret := config.Secret("s3cret")
			holder := struct{ Key config.Secret }{secret}
			slog.New(handler(&b)).Info("told", "attr", secret, "struct", holder, "pointer", &holder, "group", slog.GroupValue(slog.Any("in", secret)))
			if strings.Contains(b.String(), "s3cret") || strings.Count(b.String(), "[redacted]") < 3 {
				t.Errorf("logged %s", b.String())
			}
		})
	}
}

func TestServersShow(t *testing.T) {
	tests := []struct{ name, list, want string }{
		{"empty", "", ""},
		{"plain", "nats://a:4222, b", "nats://a:4222,b"},
		{"user and password", "nats://u:s3cret@a:4222", "nats://[redacted]@a:4222"},
		{"token", "tls://s3cret@a", "tls://[redacted]@a"},
		{"no scheme", "u:s3cret@a:4222", "nats://[redacted]@a:4222"},
		{"comma in the password", "nats://u:12,s3cret@a", "[redacted]"},
		{"slash in the password", "nats://u:12/s3cret@a", "[redacted]"},
		{"hash in the password", "nats://u:12#s3cret@a", "[redacted]"},
		{"question mark in the password", "nats://u:12?s3cret@a", "[redacted]"},
		{"at sign in the password", "nats://u:s3cret@s3cret@a", "nats://[redacted]@a"},
		{"bad escape", "nats://u:s3cret%@a", "[redacted]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := config.Servers(tt.list)
			if got := s.String(); got != tt.want {
				t.Errorf("String() = %s, want %s", got, tt.want)
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				if got := fmt.Sprintf(verb, s); strings.Contains(got, "s3cret") || strings.Contains(got, fmt.Sprintf("%x", "s3cret")) {
					t.Errorf("%s shows %s", verb, got)
				}
			}
		})
	}
}

// FuzzServersShow puts a password of any spelling between a user and a host and
// checks that no part of it is shown. The password contains a number, which could
// pass for a port.
func FuzzServersShow(f *testing.F) {
	for _, around := range [][2]string{{"", ""}, {"", "/"}, {"", ","}, {",", ""}, {"a", "#b"}, {"@", "@"}, {"@x:", "/"}, {"%41", "%"}, {"[::1]:", "?"}} {
		f.Add(around[0], around[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, "://") {
			t.Skip("after a comma, indistinguishable from one more server")
		}
		list := "nats://user:" + before + "7351" + after + "@host:4222"
		if got := config.Servers(list).String(); strings.Contains(got, "7351") {
			t.Errorf("the password of %q shows in %q", list, got)
		}
	})
}
