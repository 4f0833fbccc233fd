//go:build unix

package process

import "syscall"

// These signals suspend a process and let it continue.
const signalPause, signalResume = syscall.SIGSTOP, syscall.SIGCONT
