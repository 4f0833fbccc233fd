//go:build linux

package machine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LimitFiles prevents a running program from opening any file or socket, even after it
// closes another one. It keeps its open files. The returned function ends the limit.
func LimitFiles(pid int) (restore func() error, err error) {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return nil, fmt.Errorf("machine: file limit of process %d: %w", pid, err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}, nil); err != nil {
		return nil, fmt.Errorf("machine: file limit of process %d: %w", pid, err)
	}
	return func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil) }, nil
}
