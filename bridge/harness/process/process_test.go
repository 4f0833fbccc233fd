//go:build unix

package process_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"plaspy-bridge/bridge/harness/process"
)

// helper is the variable by which this program acts as the program under test.
const helper = "PROCESS_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "wait":
		fmt.Println("waiting")
		time.Sleep(time.Hour) // until a signal ends it
	case "fail":
		fmt.Println(strings.Repeat("x", 3000) + "failed")
		os.Exit(3)
	}
	goleak.VerifyTestMain(m)
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts this program as a helper, and waits until it has written something.
func start(t *testing.T, mode string) *process.Process {
	t.Helper()
	p := process.New("helper", os.Args[0], filepath.Join(t.TempDir(), "log"))
	t.Cleanup(p.End)
	again(t, p, mode)
	return p
}

// again starts the program another time.
func again(t *testing.T, p *process.Process, mode string) {
	t.Helper()
	before, _ := p.Log() // without one before the first start
	ok(t, p.Start(nil, append(os.Environ(), helper+"="+mode)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if log, err := p.Log(); err == nil && len(log) > len(before) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the helper writes nothing")
		}
	}
}

func TestLives(t *testing.T) {
	t.Parallel()
	p := start(t, "wait")
	if err := p.Start(nil, nil); err == nil {
		t.Error("it was started twice at once")
	}
	if !p.Running() || p.PID() == 0 {
		t.Errorf("running %t, PID %d after the start", p.Running(), p.PID())
	}
	ok(t, p.Pause())
	ok(t, p.Resume())
	ok(t, p.Pause())
	ok(t, p.Kill())
	if p.Running() || p.PID() != 0 {
		t.Errorf("running %t, PID %d after the end", p.Running(), p.PID())
	}
	for name, f := range map[string]func() error{"Kill": p.Kill, "Pause": p.Pause, "Resume": p.Resume} {
		if f() == nil {
			t.Errorf("%s returned no error without a running program", name)
		}
	}
	again(t, p, "wait")
	stopped, err := p.Stop(t.Context())
	ok(t, err)

	lives := p.Lives()
	if len(lives) != 2 {
		t.Fatalf("got %d lives, want 2", len(lives))
	}
	killed := lives[0]
	if !killed.Killed || killed.Asked || killed.Status != -1 || killed.To.Before(killed.From) {
		t.Errorf("the first life is %+v, want one that was killed", killed)
	}
	if n := len(killed.Pauses); n != 2 || killed.Pauses[0].To.IsZero() || !killed.Pauses[1].To.Equal(killed.To) {
		t.Errorf("got pauses %v, want two, the last until the end at %v", killed.Pauses, killed.To)
	}
	if stopped.Killed || !stopped.Asked || stopped.Status != -1 || !stopped.From.Equal(lives[1].From) || len(stopped.Pauses) != 0 {
		t.Errorf("the second life is %+v, want one that was stopped", stopped)
	}
	if killed.RSS == 0 && runtime.GOOS == "linux" {
		t.Error("the peak memory is unknown")
	}
	if log, err := p.Log(); err != nil || log != "waiting\nwaiting\n" {
		t.Errorf("got log %q, %v, want one line of each life", log, err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	p := start(t, "wait")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Wait(over); err == nil || !strings.Contains(err.Error(), "helper still runs") {
		t.Errorf("got %v for a program that runs", err)
	}
	ok(t, p.Kill())
	p.Upgrade(os.Args[0])
	again(t, p, "fail")
	life, err := p.Wait(t.Context())
	ok(t, err)
	if life.Status != 3 || life.Asked || life.Killed {
		t.Errorf("got %+v, want status 3", life)
	}
	if end := p.LogEnd(); len(end) != 2003 || !strings.HasPrefix(end, "...xxx") || !strings.HasSuffix(end, "failed\n") {
		t.Errorf("got %d bytes of the log: %.20s", len(end), end)
	}
}

// TestLogTo sends the output to a pipe from the next start on.
func TestLogTo(t *testing.T) {
	t.Parallel()
	p := process.New("helper", os.Args[0], filepath.Join(t.TempDir(), "log"))
	t.Cleanup(p.End)
	r, w, err := os.Pipe()
	ok(t, err)
	defer func() { ok(t, r.Close()) }()
	p.LogTo(w)
	ok(t, p.Start(nil, append(os.Environ(), helper+"=wait")))
	ok(t, w.Close())
	b := make([]byte, 100)
	n, err := r.Read(b)
	ok(t, err)
	if got := string(b[:n]); got != "waiting\n" {
		t.Errorf("the pipe received %q", got)
	}
	if log, err := p.Log(); err != nil || log != "" {
		t.Errorf("got log %q, %v, want an empty one", log, err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	p := start(t, "wait")
	u, err := p.Usage()
	ok(t, err)
	if u.RSS < 1<<16 || u.RSS > 1<<32 {
		t.Errorf("got %d bytes resident", u.RSS)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for u.Switches == 0 && ctx.Err() == nil { // its threads will go to sleep
		u, err = p.Usage()
		ok(t, err)
	}
	if u.Switches <= 0 {
		t.Errorf("its threads went to sleep %d times", u.Switches)
	}
	ok(t, p.Kill())
	if _, err := p.Usage(); err == nil {
		t.Error("got the usage of a program that has ended")
	}
}
