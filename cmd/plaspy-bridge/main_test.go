package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
)

// program is the whole program, in the test's process.
var program = clitest.Program(execute)

func TestExecute(t *testing.T) {
	tests := []struct {
		name, args     string
		env            []string
		status         int
		stdout, stderr string // parts of
	}{
		{"help", "--help", nil, 0, "Available Commands", ""},
		{"nothing", "", nil, 0, "Available Commands", ""},
		{"unknown command", "rum", nil, 2, "", "--help"},
		{"unknown flag", "env --bogus", nil, 2, "", "unknown flag: --bogus"},
		{"unwanted argument", "version now", nil, 2, "", "--help"},
		{"flag of another type", "sim --devices=-1", nil, 2, "", "devices"},
		{"version", "version", nil, 0, "go      go1.", ""},
		{"schema", "schema", []string{"BRIDGE_PREFIX", "my-fleet"}, 0, `"address": "my-fleet.location.{device}"`, ""},
		{"schema as Go", "schema --types go", []string{"BRIDGE_PREFIX", "my-fleet"}, 0, `EventsStream      = "MY_FLEET_EVENTS"`, ""},
		{"schema as TypeScript", "schema --types typescript", nil, 0, "export interface LocationEvent {", ""},
		{"schema in another language", "schema --types cobol", nil, 2, "", "expected one of go, typescript"},
		{"schema in no language", "schema --types=", nil, 2, "", "expected one of go, typescript"},
		{"schema of another message", "schema --message=foo", nil, 2, "", "expected one of alert, "},
		{"why of nothing", "why", nil, 2, "", "expected one DEVICE, got 0"},
		{"forget of two devices", "forget a b", nil, 2, "", "expected one DEVICE, got 2"},
		{"undo of nothing", "forget --undo", nil, 2, "", "expected one DEVICE, got 0"},
		{"forget of a long id", "forget " + strings.Repeat("x", 9000), nil, 2, "", "9000 bytes"},
		{"dead letter without a number", "dlq show", nil, 2, "", "expected one SEQ, got 0"},
		{"env without any configuration", "env", nil, 0, "error: PLASPY_USERNAME is not set", ""},
		{"env shows what is odd", "env", []string{"BRIDGE_WORKRES", "1"}, 0, "warning: BRIDGE_WORKRES is not a variable of the bridge; did you mean BRIDGE_WORKERS?", ""},
		{"env for a file", "env --example", nil, 0, "\nPLASPY_USERNAME=\n", ""},
		{"env for the README", "env --markdown", nil, 0, "| variable | type | default | meaning |", ""},
		{"health without a bridge", "health", []string{"BRIDGE_HTTP_ADDR", "127.0.0.1:1"}, 1, "", "connection refused"},
		{"health without an address", "health", []string{"BRIDGE_HTTP_ADDR", ""}, 1, "", "BRIDGE_HTTP_ADDR is set to nothing"},
		{"health with a wrong address", "health", []string{"BRIDGE_HTTP_ADDR", "x"}, 1, "", "BRIDGE_HTTP_ADDR is not an address"},
		{"sim on no address", "sim --addr=x", nil, 2, "", "--addr"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clitest.ClearEnv(t, tt.env...)
			status, stdout, stderr := program.Run(t, strings.Fields(tt.args)...)
			if status != tt.status || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("status %d, want %d\nstdout %s\nwant   %s\nstderr %s\nwant   %s", status, tt.status, stdout, tt.stdout, stderr, tt.stderr)
			}
			if tt.status == 0 && stderr != "" {
				t.Errorf("status 0 with stderr %s", stderr)
			}
		})
	}
}

func TestEnvShowsNoSecret(t *testing.T) {
	clitest.ClearEnv(t, "PLASPY_USERNAME", "operator", "PLASPY_API_KEY", "s3cret", "NATS_URL", "nats://u:s3cret@h,nats://u:s3cret%@h",
		"NATS_TOKEN", "s3cret", "BRIDGE_HTTP_TOKEN", "s3cret", "PLASPY_BASE_URL", "https://u:s3cret@h", "NATS_CREDS", "s3cret", "BRIDGE_WORKERS", "s3cret", "PLASPY_KEY", "s3cret")
	status, stdout, stderr := program.Run(t, "env")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	if strings.Contains(stdout+stderr, "s3cret") {
		t.Errorf("a secret shows:\n%s%s", stdout, stderr)
	}
	if got := regexp.MustCompile(`(?m)^PLASPY_API_KEY +\S+`).FindString(stdout); !strings.HasSuffix(got, "[redacted]") {
		t.Errorf("PLASPY_API_KEY is shown as %q", got)
	}
}

// TestSim starts the simulator as a person would, uses the settings that it prints, and
// interrupts it.
func TestSim(t *testing.T) {
	clitest.ClearEnv(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	said, stdout := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- program(ctx, []string{"sim", "--addr=127.0.0.1:0", "--devices=3", "--username=me", "--api-key=it's"}, stdout, io.Discard)
		_ = stdout.Close()
	}()
	buffer := make([]byte, 4096)
	n, err := said.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	text := string(buffer[:n])
	base := regexp.MustCompile(`(?m)^export PLASPY_BASE_URL=(http://127\.0\.0\.1:\d+)$`).FindStringSubmatch(text)
	if base == nil || !strings.Contains(text, "\nexport PLASPY_USERNAME=me\nexport PLASPY_API_KEY='it'\\''s'\n") || strings.Contains(text, "ALLOW_HTTP") {
		t.Fatalf("printed %s", text)
	}
	body := strings.NewReader(`{"userName":"me","apiKey":"it's"}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base[1]+"/api/Auth/Token", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(answer), `"token"`) {
		t.Errorf("token: %s, %v", answer, err)
	}
	interrupt()
	if got := <-status; got != 0 {
		t.Errorf("status %d after an interrupt, want 0", got)
	}
}

func TestInstructionsOffLoopback(t *testing.T) {
	if got := instructions("http://192.0.2.1:8090", sim.Options{UserName: "sim"}); !strings.Contains(got, "\nexport PLASPY_ALLOW_HTTP=true\n") {
		t.Errorf("printed %s", got)
	}
}

func TestBuild(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.1.0"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
	}}
	tests := []struct {
		name, version, commit string
		info                  *debug.BuildInfo
		wantVersion, wantHash string
	}{
		{"nothing known", "", "", nil, "development", "unknown"},
		{"built in a checkout", "", "", info, "v1.1.0", "abc with changes"},
		{"version stamped", "v1.2.3", "", info, "v1.2.3", "abc with changes"},
		{"both stamped", "v1.2.3", "def", info, "v1.2.3", "def"},
		{"go run", "", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "development", "unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if number, hash := build(tt.version, tt.commit, tt.info); number != tt.wantVersion || hash != tt.wantHash {
				t.Errorf("got %s, %s, want %s, %s", number, hash, tt.wantVersion, tt.wantHash)
			}
		})
	}
}
