package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
)

// Exit statuses of the contract.
const (
	exitDone   = 0
	exitFailed = 1 // at run time
	exitWrong  = 2 // the configuration or the command line
)

// failure is an error that ends the process with status 1, whatever it wraps.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// execute runs one command line and returns the exit status. It is all of the
// program but the process's own context, arguments and streams.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	begun := false
	root := &cobra.Command{
		Use:   "plaspy-bridge",
		Short: "Carries locations and alerts between the Plaspy REST API and NATS",
		Long: "plaspy-bridge polls the Plaspy REST API and publishes what changed to NATS JetStream,\n" +
			"and posts what arrives on its inbound subjects to the API.\n\n" +
			"Settings are environment variables: plaspy-bridge env shows them all.\n" +
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
	status, said := exitStatus(err, begun)
	say(stderr, said)
	return status
}

// say writes the last words of the process, and waits for their reader as long as
// for that of the log.
func say(w io.Writer, text string) {
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

// exitStatus makes an exit status of err, and a text for a person. begun reports
// whether a command's own code was reached; if not, the command line is wrong.
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

// commands are all there are, in the order that help shows them.
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
