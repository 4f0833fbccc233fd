package harness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package that starts whole processes, four at a time unless the
// flag -parallel says otherwise, because they compete for the processors. It calls end
// after them, and fails if goroutines are left. It ends the process.
func Main(m *testing.M, end func()) {
	_ = flag.Set("test.parallel", "4") // go test defines it
	flag.Parse()
	status := m.Run()
	end()
	err := goleak.Find()
	for tries := 0; err != nil && tries < 50; tries++ { // each waits for less than half a second
		err = goleak.Find()
	}
	if err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// AtMost returns the limit of a test for something that takes less than d on a machine with
// processors for several tests. On a smaller one the processes of other tests take their
// time too.
func AtMost(d time.Duration) time.Duration {
	if runtime.NumCPU() >= 8 {
		return d
	}
	return 3 * d
}

// Within returns a context with a generous timeout for a step of a test.
func Within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("took longer than %v", d))
	t.Cleanup(cancel)
	return ctx
}
