package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
)

// unit returns the settings of the systemd unit by key. A key that is there more than once
// has all its values, space separated.
func unit(t *testing.T) map[string]string {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(text(t, "plaspy-bridge.service")) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			said[key] = strings.TrimSpace(said[key] + " " + value)
		}
	}
	return said
}

func TestUnit(t *testing.T) {
	said := unit(t)
	for key, want := range map[string]string{
		"ExecStart":                "plaspy-bridge run",
		"LoadCredential":           "api-key:/etc/plaspy-bridge/api-key",
		"Environment":              "PLASPY_API_KEY_FILE=%d/api-key",
		"Restart":                  "always",
		"RestartPreventExitStatus": "2",
	} {
		if said[key] != want {
			t.Errorf("%s=%s, want %s", key, said[key], want)
		}
	}
	var stop time.Duration
	for _, v := range config.Variables() {
		if v.Name == "BRIDGE_SHUTDOWN_TIMEOUT" {
			stop, _ = time.ParseDuration(v.Default)
		}
	}
	grace, err := time.ParseDuration(said["TimeoutStopSec"])
	if err != nil || stop == 0 || grace <= stop {
		t.Errorf("killed after %v, while BRIDGE_SHUTDOWN_TIMEOUT is %v by default: %v", grace, stop, err)
	}
}

// TestUnitIsSandboxed asks systemd how exposed the service is, of 10: it has to
// reach the network, and to be of the host's own files.
func TestUnitIsSandboxed(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	const tenths = "15"
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold="+tenths, "plaspy-bridge.service").CombinedOutput()
	if err != nil {
		t.Errorf("more exposed than %s tenths, or not read: %v\n%s", tenths, err, out)
	}
}

// TestCheckUnderSystemd runs the function of operations.md with a stand-in for systemd-run, and compares its
// properties with those of the unit.
func TestCheckUnderSystemd(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no shell")
	}
	_, after, _ := strings.Cut(text(t, "docs/operations.md"), "```sh\nbridge() {")
	script, _, _ := strings.Cut(after, "```")
	stand := t.TempDir()
	if err := os.WriteFile(filepath.Join(stand, "systemd-run"), []byte("#!"+shell+"\nprintf '%s\\n' \"$@\"\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	t.Setenv("PATH", stand+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := exec.CommandContext(t.Context(), shell, "-euc", "bridge() {"+script).CombinedOutput() // one argument a line
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := strings.Split(strings.TrimSpace(string(out)), "\n")
	if got := args[max(0, len(args)-2):]; !slices.Equal(got, []string{"plaspy-bridge", "check"}) {
		t.Errorf("it runs %q", got)
	}
	said := unit(t)
	said["WorkingDirectory"] = strings.Replace(said["WorkingDirectory"], "%S", "/var/lib", 1)
	said["User"] = "plaspy-bridge" // of a dynamic user: the name of the unit
	given := map[string]string{}
	for i, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch args[i] {
		case "-p":
			given[key] = value
			if value != said[key] {
				t.Errorf("%s=%s, the unit has %s", key, value, said[key])
			}
		case "-E":
			if value = strings.Replace(value, "/run/credentials/plaspy-bridge-cli.service", "%d", 1); key+"="+value != said["Environment"] {
				t.Errorf("%s=%s, the unit has %s", key, value, said["Environment"])
			}
		}
	}
	for _, key := range []string{"EnvironmentFile", "LoadCredential", "WorkingDirectory", "StateDirectory", "StateDirectoryMode", "DynamicUser", "UMask"} {
		if given[key] == "" {
			t.Errorf("without %s", key)
		}
	}
	if !slices.Contains(args, "--unit=plaspy-bridge-cli") || strings.Contains(script, "%") {
		t.Error("systemd-run expands no specifiers, so the folder of the credentials follows from a fixed name of the unit")
	}
}
