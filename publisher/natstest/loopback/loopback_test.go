package loopback_test

import (
	"os"
	"os/exec"
	"testing"

	"plaspy-bridge/publisher/natstest/loopback"
)

// TestMain lets the test binary be the program that TestWhileProcessesStart starts.
func TestMain(m *testing.M) {
	if os.Getenv("LOOPBACK_TEST_CHILD") != "" {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestWhileProcessesStart takes addresses while the process starts others, and listens on
// each repeatedly.
func TestWhileProcessesStart(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d processes were started", n)
				return
			default:
			}
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), "LOOPBACK_TEST_CHILD=1")
			if err := child.Run(); err != nil {
				t.Errorf("start a process: %v", err)
				return
			}
		}
	}()
	defer func() { close(stop); <-done }()
	p := &loopback.Ports{}
	seen := map[string]bool{}
	for range 200 {
		addr, err := p.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Fatalf("%s was returned twice", addr)
		}
		seen[addr] = true
		for range 20 {
			l, err := loopback.Listen(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBlocks lets two owners take addresses from blocks of their own.
func TestBlocks(t *testing.T) {
	a, b := &loopback.Ports{}, &loopback.Ports{}
	seen := map[string]bool{}
	for _, p := range []*loopback.Ports{a, b, a, b} {
		addr, err := p.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Errorf("%s was returned twice", addr)
		}
		seen[addr] = true
	}
}
