package deploy_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
)

// unit is what the systemd unit says, by key; a key that is there more than once
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
