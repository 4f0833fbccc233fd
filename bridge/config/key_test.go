package config_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/config"
)

// write replaces a file's content.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFromEnvironment(t *testing.T) {
	s, err := config.Config{APIKey: "k3y"}.KeySource(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := s.Key(); key != "k3y" || err != nil {
		t.Errorf("Key() = %q, %v", key, err)
	}
	s.Watch(t.Context(), func() { t.Error("a key that cannot change changed") }) // returns at once
}

func TestKeyFileContents(t *testing.T) {
	tests := []struct{ name, content, key, fault string }{
		{"line", "k3y\n", "k3y", ""},
		{"line of Windows", "k3y\r\n", "k3y", ""},
		{"byte order mark", "\ufeffk3y", "k3y", ""},
		{"spaces are the key's", " k3y ", " k3y ", ""},
		{"empty", "", "", "empty"},
		{"line break alone", "\n", "", "empty"},
		{"two lines", "user\nk3y\n", "", "not one line"},
		{"UTF-16", "\xff\xfek\x003\x00y\x00", "", "not one line"},
		{"huge", strings.Repeat("x", 1<<20), "", "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := config.Config{APIKeyFile: file(t, "key", tt.content)}.KeySource(slog.New(slog.DiscardHandler))
			if tt.fault != "" {
				if _, ok := errors.AsType[config.Faults](err); !ok || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "k3y") {
					t.Errorf("KeySource: %v, want a fault with %q", err, tt.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if key, _ := s.Key(); key != tt.key {
				t.Errorf("Key() = %q, want %q", key, tt.key)
			}
		})
	}
}

// TestKeyFileLosesKey takes the file away and brings it back: the old key stays,
// with one line when the trouble starts, one when it changes, one when it ends.
func TestKeyFileLosesKey(t *testing.T) {
	var log strings.Builder
	path := file(t, "key", "old")
	s, err := config.Config{APIKeyFile: path}.KeySource(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name  string
		do    func()
		key   string
		lines int // logged so far
	}{
		{"there", func() {}, "old", 0},
		{"gone", func() { _ = os.Remove(path) }, "old", 1},
		{"still gone", func() {}, "old", 1},
		{"empty", func() { write(t, path, "") }, "old", 2},
		{"a folder", func() { _ = os.Remove(path); _ = os.Mkdir(path, 0o700) }, "old", 3},
		{"back, another", func() { _ = os.Remove(path); write(t, path, "new\n") }, "new", 4},
		{"gone again", func() { _ = os.Remove(path) }, "new", 5},
	}
	for _, step := range steps {
		step.do()
		if key, err := s.Key(); key != step.key || err != nil {
			t.Errorf("%s: Key() = %q, %v, want %q", step.name, key, err, step.key)
		}
		if lines := strings.Count(log.String(), "\n"); lines != step.lines {
			t.Errorf("%s: %d lines logged, want %d:\n%s", step.name, lines, step.lines, log.String())
		}
	}
	if strings.Contains(log.String(), "key=") || strings.Contains(log.String(), "new\n") {
		t.Errorf("a key was logged:\n%s", log.String())
	}
}

func TestKeyFileWatch(t *testing.T) {
	tests := []struct {
		name    string
		change  func(t *testing.T, path string)
		changes int
	}{
		{"nothing", func(*testing.T, string) {}, 0},
		{"same length", func(t *testing.T, path string) { write(t, path, "kez") }, 1},
		{"same content again", func(t *testing.T, path string) { write(t, path, "key\n") }, 0},
		{"gone", func(_ *testing.T, path string) { _ = os.Remove(path) }, 0},
		{"symbolic link swapped, as Kubernetes does", func(t *testing.T, path string) {
			link := path + ".link"
			if err := os.Symlink(file(t, "key", "new"), link); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link, path); err != nil {
				t.Fatal(err)
			}
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, "key", "key")
			synctest.Test(t, func(t *testing.T) {
				s, err := config.Config{APIKeyFile: path}.KeySource(slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				changes := make(chan time.Time, 10)
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.Watch(ctx, func() { changes <- time.Now() })
				}()
				synctest.Wait()
				tt.change(t, path)
				// A token request that sees the change first does not hide it.
				if _, err := s.Key(); err != nil {
					t.Error(err)
				}
				changed := time.Now()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				cancel()
				<-done
				if len(changes) != tt.changes {
					t.Fatalf("%d changes were reported, want %d", len(changes), tt.changes)
				}
				if tt.changes > 0 {
					if late := (<-changes).Sub(changed); late > 5*time.Second {
						t.Errorf("noticed after %v, want within 5 s", late)
					}
				}
			})
		})
	}
}
