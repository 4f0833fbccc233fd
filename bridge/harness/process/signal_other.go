//go:build !unix

package process

import "syscall"

// There is no signal that suspends a process. os.Process.Signal refuses these.
const signalPause, signalResume = syscall.Signal(-1), syscall.Signal(-2)
