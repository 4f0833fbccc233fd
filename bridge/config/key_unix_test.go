//go:build unix

package config_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"plaspy-bridge/bridge/config"
)

// TestKeyFilePipe reads a named pipe without a writer, and does not wait.
func TestKeyFilePipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Config{APIKeyFile: path}.KeySource(slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("KeySource: %v, want not a regular file", err)
	}
}
