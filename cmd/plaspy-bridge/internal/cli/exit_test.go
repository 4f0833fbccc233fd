package cli_test

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
)

func TestExitStatus(t *testing.T) {
	clitest.ClearEnv(t)
	_, _, err := config.Load()
	tests := []struct {
		name   string
		err    error
		status int
		stderr string
	}{
		{"done", nil, cli.ExitDone, ""},
		{"faults", err, cli.ExitWrong, "plaspy-bridge env shows every variable.\n"},
		{"faults of a health check", cli.Failed(err), cli.ExitFailed, "PLASPY_USERNAME is not set"},
		{"anything else", io.ErrUnexpectedEOF, cli.ExitFailed, "plaspy-bridge: unexpected EOF\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			program := clitest.With(func() *cobra.Command {
				return &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error { return tt.err }}
			})
			status, _, stderr := program.Run(t, "x")
			if status != tt.status || !strings.Contains(stderr, tt.stderr) || (stderr == "") != (tt.err == nil) {
				t.Errorf("status %d, want %d, stderr %q, want %q", status, tt.status, stderr, tt.stderr)
			}
		})
	}
}
