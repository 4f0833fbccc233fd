package harness

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has the kernel kill a program when this one dies, however it
// dies: a test that times out runs no cleanup.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// peakRSS is the most memory that a running program has had resident. The
// kernel's account of it after the end is of no use: it begins with the memory
// of the program that forked.
func peakRSS(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kB, _ := strconv.ParseInt(f[1], 10, 64) // 0 where it is not a number
			return kB << 10
		}
	}
	return 0
}
