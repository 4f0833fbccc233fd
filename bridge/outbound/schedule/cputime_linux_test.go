package schedule_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the CPU time of this thread, which other load on the machine does not lengthen.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
