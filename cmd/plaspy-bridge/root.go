package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/publisher"
)

// Exit statuses of the contract.
const (
	exitDone   = 0
	exitFailed = 1 // at run time
	exitWrong  = 2 // the configuration or the command line
)

// failure is an error that ends the process with status 1, even if it wraps a
// configuration error.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// execute runs one command line and returns the exit status. It is the whole
// program except for the process's own context, arguments and streams.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	begun := false
	root := &cobra.Command{
		Use:   "plaspy-bridge",
		Short: "Carries locations and alerts between the Plaspy REST API and NATS",
		Long: "plaspy-bridge polls the Plaspy REST API, publishes changed locations and alerts to NATS JetStream,\n" +
			"and posts the messages of its inbound subjects to the API.\n\n" +
			"Settings are environment variables; plaspy-bridge env shows all of them.\n" +
			"Exit status: 0 done, 1 failed at run time, 2 the configuration is wrong.",
		SilenceErrors:    true, // printed here, once
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { begun = true },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(commands()...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	err := root.ExecuteContext(ctx)
	status, text := exitStatus(err, begun)
	writeLast(stderr, text)
	return status
}

// writeLast writes the process's last output. It waits for a stalled reader as long
// as the log does.
func writeLast(w io.Writer, text string) {
	if text == "" {
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(w, text) // the process ends either way
	}()
	select {
	case <-written:
	case <-time.After(logFlush):
	}
}

// exitStatus returns the exit status for err, and a message. begun reports whether
// a command's own code was reached; if not, the command line is wrong.
func exitStatus(err error, begun bool) (status int, text string) {
	if err == nil {
		return exitDone, ""
	}
	text = fmt.Sprintf("plaspy-bridge: %v\n", err)
	_, failed := errors.AsType[failure](err)
	_, wrong := errors.AsType[config.Faults](err)
	switch {
	case failed:
		return exitFailed, text
	case wrong:
		return exitWrong, text + "plaspy-bridge env shows every variable.\n"
	case !begun:
		return exitWrong, text + "plaspy-bridge --help shows the commands.\n"
	default:
		return exitFailed, text
	}
}

// commands returns all commands in the order in which help shows them.
func commands() []*cobra.Command {
	return []*cobra.Command{
		runCommand(),
		demoCommand(),
		checkCommand(),
		controlCommand(),
		dlqCommand(),
		envCommand(),
		forgetCommand(),
		healthCommand(),
		schemaCommand(),
		simCommand(),
		statusCommand(),
		versionCommand(),
		whyCommand(),
	}
}

// oneDevice checks that the only argument is the id of a device.
func oneDevice(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one DEVICE, got %d", len(args))
	}
	_, err := publisher.Token(args[0])
	return err
}

// oneOf checks that a flag is not set, or has one of the values.
func oneOf(flag string, value *string, values []string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed(flag) || slices.Contains(values, *value) {
			return nil
		}
		return fmt.Errorf("--%s %q: want one of %s", flag, *value, strings.Join(values, ", "))
	}
}
