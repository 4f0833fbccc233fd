package embedded

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func confFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestConfigErrorsShowNoSecret checks for each fault of a configuration file that the
// error shows the place, once, and no content of the file.
func TestConfigErrorsShowNoSecret(t *testing.T) {
	t.Setenv("PW_WITH_SPACE", "SECRETone SECRETtwo")
	t.Setenv("PW_NUMBER", "12345678")
	t.Setenv("PW_BRACE", "{SECRETbrace")
	const jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.SECRETjwt.SECRETsig"
	for _, tt := range []struct{ conf, want string }{
		{`authorization { user: a, password: "SECRETword" "x" }`, ""},
		{`authorization { user: a, password: SECRETword, SECRETword2 }`, ""},
		{"authorization { token: \"SECRETword\n}", ""},
		{`authorization { token: SECRETword{} }`, ""},
		{`authorization { users: [ {user: a, password: SECRETword, permitions: {}} ] }`, ""},
		{`authorization { user: a, password: 123456789SECRETword }`, ""},
		{`authorization { user: a, password: 1234567890123456789012SECRET }`, ""},
		{`authorization { user: a, password: $SECRETword }`, "an undefined variable"},
		{`authorization { user: a, password: SECRET$word }`, ""},
		{`authorization { user: a, password: $PW_NUMBER }`, "a value of another type"},
		{`authorization { user: a, password: $PW_BRACE }`, "an environment variable with an invalid value"},
		{`accounts { A { users: [ {nkey: SECRETword} ] } }`, "nkey"},
		{`leafnodes { remotes: [ { url: "nats://user:SECRET%word@host:7422" } ] }`, "an invalid leaf node URL"},
		{`leafnodes { remotes: [ { url: "nats://user:SECRET word@host:7422" } ] }`, ""},
		{`leafnodes { remotes: [ { urls: ["nats://SECRET\"%word@host:7422"] } ] }`, ""},
		{`leafnodes { authorization { user: a, password: 99, SECRETword: 1 } }`, ""},
		{`cluster { routes: ["nats://user:SECRETw#ord@host:port"] }`, ""},
		{`cluster { name: x, port: 6222, routes: ["nats://user:SECRETword@host:po rt"] }`, ""},
		{`gateway { name: x, port: 7222, gateways: [{name: y, url: "nats://user:SECRET%word@host"}] }`, ""},
		{`authorization { user: a, password: \SECRETword }`, ""},
		{`jetstream { key: SECRETword, store_dir: "/tmp/x" , cipher: foo}`, ""},
		{`operator: ` + jwt, ""},
		{`resolver: MEMORY, resolver_preload { SECRETaccount: ` + jwt + ` }`, ""},
		{`operator: "/nowhere/SECRETpath"`, ""},
		{`include "SECRETfile"`, "an included file"},
		{`include SECRETfile.conf`, "an included file"},
		{`SECRETkey: 1`, "unknown field"},
		{`SECRETalone`, ""},
		{`a: [SECRETword`, ""},
		{`tls { cert_file: "/SECRETcert", key_file: "/SECRETkey" }`, ""},
		{`websocket { listen: "127.0.0.1:0", password: SECRETword, username: 7 }`, ""},
		{`mqtt { listen: "SECRETword:x" }`, ""},
		{`accounts { A { users: [{user: SECRETuser, password: SECRETword}, {user: SECRETuser, password: SECRETword}] } }`, ""},
		{`authorization { users: [{user: a, password: SECRETword}], token: SECRETword2, auth_callout { issuer: SECRETissuer } }`, ""},
		{`authorization { user: a, password: $PW_WITH_SPACE, permissions: { publish: 7 } }`, ""},
	} {
		o := Options{Config: confFile(t, tt.conf), Dir: t.TempDir(), Name: "test"}
		_, err := o.ServerOptions()
		if err == nil { // found only when the server is made
			var s *Server
			if s, err = Start(o, slog.New(slog.DiscardHandler)); err == nil {
				if stopErr := s.Stop(); stopErr != nil {
					t.Error(stopErr)
				}
				if tt.want != "" {
					t.Errorf("%s: no error", tt.conf)
				}
				continue
			}
		}
		text := err.Error()
		if strings.Contains(text, "SECRET") || strings.Contains(text, "12345678") || !strings.Contains(text, tt.want) {
			t.Errorf("%s\n   -> %v, want %q", tt.conf, err, tt.want)
		}
		if wrong, ok := errors.AsType[*ConfigError](err); ok && (strings.Count(text, "BRIDGE_EMBEDDED_CONFIG") != 1 || len(wrong.Problems) == 0) {
			t.Errorf("%s\n   -> error %q", tt.conf, text)
		}
	}
}

// TestConfigErrorsSayWhere checks the line and column of the errors of the parser and of
// the server.
func TestConfigErrorsSayWhere(t *testing.T) {
	for conf, want := range map[string]string{
		"port: 4222\nfoo: 1\n":                                  "nats.conf:2:",
		"port: 4222\n\nauthorization { user: a, password: 7 }":  "nats.conf:3:",
		"port: 4222\nauthorization { user: a, password: $NO_ }": "nats.conf:2: an undefined variable",
		"port: 4222\nfoo: [1\n":                                 "nats.conf:",
	} {
		_, err := Options{Config: confFile(t, conf), Dir: t.TempDir()}.ServerOptions()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", conf, err, want)
		}
	}
	if _, err := (Options{Config: "/nowhere/SECRET", Dir: t.TempDir()}).ServerOptions(); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestVariables(t *testing.T) {
	name := confFile(t, "include more.conf\nauthorization { user: a, password: $BRIDGE_PASSWORD }\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(name), "more.conf"), []byte("include nats.conf\nport: $NATS_PORT"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Variables(name); !slices.Equal(got, []string{"BRIDGE_PASSWORD", "NATS_PORT"}) {
		t.Errorf("got %v", got)
	}
	if got := Variables("/nowhere"); got != nil {
		t.Errorf("got %v of a file that is not there", got)
	}
}

// TestLogger: clients' mistakes are warnings and come once a minute; the lines
// that the bridge logs itself do not come twice; no line shows a secret.
func TestLogger(t *testing.T) {
	var b bytes.Buffer
	l := &logger{log: slog.New(slog.NewTextHandler(&b, nil)), secrets: []string{"SECRETword"}}
	for i := range 60 {
		l.Errorf("127.0.0.1:%d - mid:%d - authentication error - User %q", 1000+i, i, "x")
		l.Errorf("127.0.0.1:%d - cid:%d - %q - authentication error", 1000+i, i, "v1.2:go:name")
	}
	l.Errorf("pipe - cid:6 - authentication error")
	l.Warnf("Recovering stream state from index errored: prior state file")
	l.Warnf("Filestore [PLASPY_EVENTS] Stream state outdated, last block has additional entries, will rebuild")
	l.Warnf("Filestore [KV_plaspy_last] Sourcing state is outdated; attempting to recover using backward scan (seq 1 to 2)")
	l.Warnf("Plaintext passwords detected, use nkeys or bcrypt")
	l.Errorf("nats://user:SECRETother@host SECRETword failed")
	got := b.String()
	if n := strings.Count(got, "\n"); n != 3 {
		t.Errorf("%d lines, want 3:\n%s", n, got)
	}
	if strings.Contains(got, "SECRET") || strings.Count(got, "level=ERROR") != 1 || strings.Count(got, "level=WARN") != 2 {
		t.Errorf("got\n%s", got)
	}
	for _, r := range l.seen {
		r.logged = r.logged.Add(-2 * repeatInterval)
	}
	l.Errorf("127.0.0.1:1 - mid:7 - authentication error - User %q", "x")
	if got := b.String(); !strings.Contains(got, "suppressed=59") {
		t.Errorf("got\n%s", got)
	}
	if l.last() != "nats://[...]@host [...] failed" {
		t.Errorf("last error %q", l.last())
	}
}
