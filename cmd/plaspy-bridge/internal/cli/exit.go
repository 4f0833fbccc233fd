package cli

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
	ExitDone   = 0
	ExitFailed = 1 // at run time
	ExitWrong  = 2 // the configuration or the command line
)

// Patience is how long the process waits for a stalled reader of its output or its
// log before it exits.
const Patience = time.Second

// failure is the error that [Failed] returns.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// Failed wraps an error so that the process ends with status 1, even if err wraps a
// configuration error. err must not be nil.
func Failed(err error) error { return failure{err} }

// Execute runs one command line below root and returns the exit status. An error is
// printed to stderr, once. It is the whole program except for the process's own
// context, arguments and streams.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	begun := false
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	root.CompletionOptions.DisableDefaultCmd = true
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
	case <-time.After(Patience):
	}
}

// exitStatus returns the exit status for err, and a message. begun reports whether
// a command's own code was reached; if not, the command line is wrong.
func exitStatus(err error, begun bool) (status int, text string) {
	if err == nil {
		return ExitDone, ""
	}
	text = fmt.Sprintf("plaspy-bridge: %v\n", err)
	_, failed := errors.AsType[failure](err)
	_, wrong := errors.AsType[config.Faults](err)
	switch {
	case failed:
		return ExitFailed, text
	case wrong:
		return ExitWrong, text + "plaspy-bridge env shows every variable.\n"
	case !begun:
		return ExitWrong, text + "plaspy-bridge --help shows the commands.\n"
	default:
		return ExitFailed, text
	}
}
