//go:build !linux

package harness

import "syscall"

// dieWithParent has no portable counterpart: what is started is ended by the
// rig's Close.
func dieWithParent() *syscall.SysProcAttr { return nil }

// peakRSS is known on Linux alone.
func peakRSS(int) int64 { return 0 }
