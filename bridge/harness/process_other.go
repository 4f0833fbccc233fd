//go:build !linux

package harness

import (
	"os"
	"syscall"
)

// dieWithParent has no portable counterpart: what is started is ended by the
// rig's Close.
func dieWithParent() *syscall.SysProcAttr { return nil }

// peakRSS has another unit on each system.
func peakRSS(*os.ProcessState) int64 { return 0 }
