package clitest

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher/natstest"
)

// AsProgram is the variable that makes a test binary the program, so that a test can
// try what needs a process: signals, pipes, exit status.
const AsProgram = "PLASPYTEST_AS_PROGRAM"

// Program runs one command line and returns the exit status.
type Program func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// With returns a program with these commands, which it makes for each command line.
func With(commands ...func() *cobra.Command) Program {
	return func(ctx context.Context, args []string, stdout, stderr io.Writer) int {
		root := &cobra.Command{Use: "plaspy-bridge"}
		for _, command := range commands {
			root.AddCommand(command())
		}
		return cli.Execute(ctx, root, args, stdout, stderr)
	}
}

// Main runs a package's tests. In a process that [Process] has started it runs the
// program instead. The test of a package calls it in TestMain.
func (p Program) Main(m *testing.M) {
	if os.Getenv(AsProgram) != "" {
		os.Exit(p.process())
	}
	natstest.Main(m)
}

func (p Program) process() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return p(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// Run runs a command line in the test's process.
func (p Program) Run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return p.RunContext(t.Context(), args...)
}

// RunContext is Run until ctx ends. A command that waits for a server reports at the
// deadline of ctx the reason why there is none.
func (p Program) RunContext(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = p(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

// Process runs a command line as a process of its own, with these variables and no
// other ones of the bridge. Unlike [Program.Run], parallel tests may call it.
func Process(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out bytes.Buffer
	status, stderr = ProcessTo(t.Context(), t, &out, env, args...)
	return status, out.String(), stderr
}

// ProcessTo is Process with another place for its output. The end of ctx interrupts
// the process.
func ProcessTo(ctx context.Context, t *testing.T, stdout io.Writer, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append([]string{AsProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// ClearEnv takes the bridge's variables out of the test's environment and sets
// those given, name and value in turn.
func ClearEnv(t *testing.T, env ...string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "BRIDGE_") || strings.HasPrefix(name, "PLASPY_") || strings.HasPrefix(name, "NATS_") || strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := 0; i < len(env); i += 2 {
		t.Setenv(env[i], env[i+1])
	}
}
