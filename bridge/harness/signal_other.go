//go:build !unix

package harness

import "syscall"

// Nothing to pause a process with: os.Process.Signal refuses these.
const signalPause, signalResume = syscall.Signal(-1), syscall.Signal(-2)
