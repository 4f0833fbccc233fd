package main

import (
	"strings"
	"testing"

	"plaspy-bridge/bridge/sim"
)

// TestCheck checks the exit status of the contract. The tests of package preflight
// check the findings.
func TestCheck(t *testing.T) {
	fleet := sim.New(sim.Options{Devices: 2})
	tests := []struct {
		name           string
		env            []string
		status         int
		stdout, stderr string // parts of
	}{
		{"good", nil, 0, "ok   device list: 2 active devices\n", ""},
		{"doubtful", []string{"BRIDGE_WORKRES", "1"}, 0, "warn configuration: BRIDGE_WORKRES", ""},
		{"not working", []string{"PLASPY_API_KEY", "other"}, 1, "FAIL token: key refused", "plaspy-bridge: 1 of 8 checks failed\n"},
		{"wrong", []string{"BRIDGE_WORKERS", "0", "PLASPY_USERNAME", ""}, 2, "", "BRIDGE_WORKERS is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			simulatedHere(t, fleet, tt.env...)
			status, stdout, stderr := program.Run(t, "check")
			if status != tt.status || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("status %d, want %d\nstdout %s\nstderr %s", status, tt.status, stdout, stderr)
			}
		})
	}
}
