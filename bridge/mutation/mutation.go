// Package mutation checks that the tests of a package notice deliberate faults in its
// source.
package mutation

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var mutate = flag.Bool("mutate", false, "run TestMutations, which takes minutes")

// Fault removes or inverts a rule: it replaces a text that the file has exactly once.
type Fault = struct{ Name, File, Old, New string }

// Test builds the caller's package with each fault in turn, and fails if its tests
// pass. The arguments are for go test. Without -mutate, the test is skipped.
func Test(t *testing.T, faults []Fault, args ...string) {
	t.Helper()
	if !*mutate {
		t.Skip("takes a few minutes; -mutate runs it")
	}
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			start := time.Now()
			//nolint:gosec // the arguments are the test's own
			out, err := exec.CommandContext(t.Context(), "go", append([]string{"test", "-vet=off", "-failfast", "-overlay", overlay(t, f), "."}, args...)...).CombinedOutput()
			switch {
			case strings.Contains(string(out), "[build failed]"):
				t.Fatalf("does not build:\n%s", out)
			case err == nil:
				t.Error("no test notices it")
			default:
				t.Logf("noticed in %v", time.Since(start).Round(100*time.Millisecond))
			}
		})
	}
}

// overlay writes the file with the fault, and returns the name of the list that go test
// reads with -overlay.
func overlay(t *testing.T, f Fault) string {
	t.Helper()
	source, err := os.ReadFile(f.File)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), f.Old); n != 1 {
		t.Fatalf("%s has the text %d times, want once", f.File, n)
	}
	original, err := filepath.Abs(f.File)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	mutant, list := filepath.Join(folder, f.File), filepath.Join(folder, "overlay.json")
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{mutant: []byte(strings.Replace(string(source), f.Old, f.New, 1)), list: replaced} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
