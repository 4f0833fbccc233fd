// Package configtest loads configurations inside tests that run in parallel, which
// may not use testing.T.Setenv.
package configtest

import (
	"os"
	"strings"
	"sync"
	"testing"

	"plaspy-bridge/bridge/config"
)

// environment guards the variables of this process.
var environment sync.Mutex

// Load loads a configuration from these variables, and from no other ones of the
// bridge, as [config.Load] does. The process's environment is unchanged afterwards.
func Load(tb testing.TB, env map[string]string, except ...string) (config.Config, []config.Warning, error) {
	tb.Helper()
	environment.Lock()
	defer environment.Unlock()
	before := os.Environ()
	for _, entry := range before {
		if name, _, _ := strings.Cut(entry, "="); ours(name) {
			change(tb, os.Unsetenv(name))
		}
	}
	for name, value := range env {
		change(tb, os.Setenv(name, value)) //nolint:usetesting // parallel tests may not use testing.T.Setenv
	}
	defer func() {
		for name := range env {
			change(tb, os.Unsetenv(name))
		}
		for _, entry := range before {
			if name, value, _ := strings.Cut(entry, "="); ours(name) {
				change(tb, os.Setenv(name, value)) //nolint:usetesting // as above
			}
		}
	}()
	return config.Load(except...)
}

// ours reports whether a variable is one of the bridge's.
func ours(name string) bool {
	return strings.HasPrefix(name, "BRIDGE_") || strings.HasPrefix(name, "PLASPY_") || strings.HasPrefix(name, "NATS_")
}

func change(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Error(err)
	}
}
