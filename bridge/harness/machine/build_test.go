//go:build linux

package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOtherGo patches a standard library that lacks a patched line.
func TestOtherGo(t *testing.T) {
	src := t.TempDir()
	if err := os.Mkdir(filepath.Join(src, "time"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"changed", "func Now() Time {\n\treturn now()\n}\n", "has 0 times"},
		{"twice", "\told\n\told\n", "has 2 times"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(src, "time", "time.go"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := apply(src, []patch{{"time/time.go", "\told\n", "\tnew\n"}})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "time/time.go") {
				t.Errorf("error %v, want it to name the file and say %q", err, test.want)
			}
		})
	}
	if _, err := apply(t.TempDir(), patches()); err == nil {
		t.Error("a standard library that is not there was patched")
	}
}
