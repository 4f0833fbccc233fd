package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dieWithParent makes the kernel kill a program when this one dies. A test that times
// out runs no cleanup.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// peakRSS returns the peak resident memory of a running program in bytes, or 0 if it is
// unknown. The value that the kernel returns after the end is useless, because it includes
// the memory of the program that forked.
func peakRSS(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kB, _ := strconv.ParseInt(f[1], 10, 64) // 0 if it is not a number
			return kB << 10
		}
	}
	return 0
}

// Usage returns the CPU time and memory of the running program from /proc.
func (p *Process) Usage() (Usage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return Usage{}, fmt.Errorf("%s: %w", p.name, errGone)
	}
	dir := "/proc/" + strconv.Itoa(p.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("%s: %w", p.name, err)
	}
	// The fields after the name, which is in parentheses. proc_pid_stat(5) numbers them
	// from 3.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	number := func(n int) int64 {
		if err != nil || n-3 >= len(fields) {
			return 0
		}
		var v int64
		v, err = strconv.ParseInt(fields[n-3], 10, 64)
		return v
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all ports of Go to Linux
	u := Usage{CPU: time.Duration(number(14)+number(15)) * tick, RSS: number(24) * int64(os.Getpagesize())}
	if err == nil {
		u.Switches, err = switches(dir)
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w", p.name, err)
	}
	return u, nil
}

// switches returns how often the threads of a process have gone to sleep.
func switches(dir string) (n int64, err error) {
	threads, err := filepath.Glob(dir + "/task/*/status")
	if err != nil {
		return 0, err
	}
	for _, name := range threads {
		status, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread ended
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "voluntary_ctxt_switches:" {
				v, _ := strconv.ParseInt(f[1], 10, 64) // 0 if it is not a number
				n += v
			}
		}
	}
	return n, nil
}
