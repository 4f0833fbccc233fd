//go:build !linux

package schedule_test

import "time"

var began = time.Now()

// threadTime is the time that has passed: CPU time of a thread is measured on Linux only.
func threadTime() time.Duration { return time.Since(began) }
