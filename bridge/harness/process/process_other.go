//go:build !linux

package process

import (
	"errors"
	"syscall"
)

// dieWithParent has no portable counterpart. [Process.End] ends the program.
func dieWithParent() *syscall.SysProcAttr { return nil }

// peakRSS is known on Linux only.
func peakRSS(int) int64 { return 0 }

// Usage returns an error, because the usage of a process is read from /proc.
func (p *Process) Usage() (Usage, error) {
	return Usage{}, errors.New("the usage of a process is known on Linux only")
}
