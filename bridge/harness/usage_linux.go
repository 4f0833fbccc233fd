package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a running program has used, as /proc tells.
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
	// What follows the name, which is in parentheses: proc_pid_stat(5) counts
	// from 3 there.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	number := func(n int) int64 {
		if err != nil || n-3 >= len(fields) {
			return 0
		}
		var v int64
		v, err = strconv.ParseInt(fields[n-3], 10, 64)
		return v
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs Linux
	u := Usage{CPU: time.Duration(number(14)+number(15)) * tick, RSS: number(24) * int64(os.Getpagesize())}
	if err != nil {
		return u, fmt.Errorf("%s: %w", p.name, err)
	}
	return u, nil
}
