//go:build unix

package harness

import "syscall"

const signalPause, signalResume = syscall.SIGSTOP, syscall.SIGCONT
