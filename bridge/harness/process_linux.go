package harness

import (
	"os"
	"syscall"
)

// dieWithParent has the kernel kill a program when this one dies, however it
// dies: a test that times out runs no cleanup.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func peakRSS(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}
