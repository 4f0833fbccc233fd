package bridge_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "plaspy-bridge"

// arrows are the imports allowed among the module's own packages: the folder,
// which owns what lies below it, and what it may import beside that.
var arrows = map[string][]string{
	"auth":                      {"auth/backoff", "auth/redact"},
	"auth/backoff":              nil,
	"auth/redact":               nil,
	"auth/logtest":              nil, // tests only
	"publisher":                 {"auth/backoff", "auth/redact"},
	"deploy":                    nil, // its examples are what users would write
	"bridge/sim/fleet":          nil,
	"bridge/sim/route":          nil,
	"bridge/sim/token":          nil,
	"bridge/sim/inprocess":      nil,
	"bridge/sim/fault":          {"bridge/sim/route"},
	"bridge/sim/account":        {"bridge/sim/fault", "bridge/sim/fleet", "bridge/sim/route"},
	"bridge/sim":                {"bridge/sim/account", "bridge/sim/fault", "bridge/sim/fleet", "bridge/sim/inprocess", "bridge/sim/route", "bridge/sim/token"},
	"bridge/mutation":           nil,
	"bridge/tick":               nil,
	"bridge/glob":               nil,
	"bridge/heap":               nil,
	"bridge/outbound/schedule":  nil,
	"bridge/outbound/quota":     nil,
	"bridge/outbound/memory":    {"bridge/tick"},
	"bridge/outbound/track":     {"bridge/plaspy/rawjson", "publisher"},
	"bridge/outbound/gap":       {"bridge/outbound/quota", "bridge/outbound/track", "bridge/plaspy", "bridge/plaspy/rawjson", "publisher"},
	"bridge/plaspy/rawjson":     nil,
	"bridge/outbound/inventory": {"bridge/glob", "auth/backoff", "bridge/plaspy/rawjson", "bridge/plaspy", "bridge/trace", "publisher"},
	"bridge/harness/timeline":   nil,
	"bridge/harness/judge":      {"bridge/harness/timeline", "publisher"},
	"bridge/harness/process":    {"bridge/harness/timeline"},
	"bridge/harness/network":    {"bridge/harness/timeline", "publisher"},
	"bridge/harness/natsserver": {"bridge/harness/judge", "bridge/harness/process", "bridge/harness/timeline", "publisher"},
	"bridge/harness/front":      {"bridge/harness/judge", "bridge/harness/network", "bridge/sim", "publisher"},
	"bridge/harness":            {"bridge/harness/front", "bridge/harness/judge", "bridge/harness/natsserver", "bridge/harness/network", "bridge/harness/process", "bridge/harness/timeline", "bridge/sim", "bridge/sim/fault", "bridge/sim/fleet", "publisher"},
	"bridge/control":            {"bridge/glob", "bridge/tick", "publisher"},
	"bridge/schema/plaspy":      nil, // what schema --types go prints
	"bridge/ops":                nil,
	"bridge/view":               {"bridge/tick"},
	"bridge/forget":             {"auth/backoff", "auth/redact", "publisher"},
	"bridge/feed":               {"auth/backoff", "auth/redact", "publisher"},
	"bridge/trace":              {"auth/backoff", "auth/redact"},
	"bridge/plaspy":             {"bridge/plaspy/rawjson", "auth", "auth/backoff", "auth/redact", "bridge/trace"},
	"bridge/replica":            {"bridge/tick", "publisher"},
	"bridge/streams":            {"bridge/ops", "bridge/tick", "publisher"},
	"bridge/config":             {"bridge/glob", "bridge/tick", "auth", "bridge/inbound/message", "auth/backoff", "auth/redact", "publisher", "bridge/trace"},
	"bridge/outbound":           {"bridge/tick", "bridge/outbound/track", "bridge/outbound/gap", "auth/backoff", "auth/redact", "bridge/plaspy", "bridge/outbound/schedule", "bridge/outbound/quota", "bridge/outbound/inventory", "bridge/trace", "publisher"},
	"bridge/inbound/lane":       nil,
	"bridge/inbound/message":    {"bridge/plaspy/rawjson", "auth", "auth/redact", "publisher"},
	"bridge/inbound/echo":       {"auth/backoff", "bridge/inbound/message", "publisher"},
	"bridge/inbound/deadletter": {"auth/redact", "bridge/inbound/message", "publisher"},
	"bridge/inbound":            {"bridge/tick", "bridge/inbound/message", "bridge/inbound/echo", "auth/backoff", "auth/redact", "bridge/inbound/lane", "bridge/plaspy", "bridge/trace", "publisher"},
	"bridge":                    {"bridge/glob", "bridge/tick", "bridge/plaspy/rawjson", "auth", "auth/backoff", "auth/redact", "publisher", "bridge/config", "bridge/control", "bridge/sim", "bridge/outbound/schedule", "bridge/outbound/quota", "bridge/outbound/memory", "bridge/outbound/inventory", "bridge/ops", "bridge/view", "bridge/feed", "bridge/forget", "bridge/trace", "bridge/plaspy", "bridge/replica", "bridge/streams", "bridge/outbound", "bridge/inbound", "bridge/inbound/message", "bridge/inbound/echo", "bridge/inbound/deadletter"},

	"cmd/plaspy-bridge/internal/cli":     {"bridge/config", "publisher"},
	"cmd/plaspy-bridge/internal/broker":  {"bridge/config", "cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd/plaspy-bridge/internal/logging": {"bridge/config", "bridge/ops", "cmd/plaspy-bridge/internal/cli"},
	"cmd/plaspy-bridge/internal/clitest": {"cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd/plaspy-bridge/internal/demo":    {"bridge", "bridge/config", "bridge/ops", "bridge/sim", "bridge/sim/account", "bridge/sim/fleet", "cmd/plaspy-bridge/internal/logging", "publisher"},
	"cmd/plaspy-bridge/internal/dlq":     {"auth/redact", "bridge/config", "bridge/inbound/deadletter", "cmd/plaspy-bridge/internal/broker", "cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd/plaspy-bridge/internal/inspect": {"bridge/config", "bridge/ops", "bridge/outbound", "cmd/plaspy-bridge/internal/broker", "cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd/plaspy-bridge/internal/operate": {"bridge/config", "bridge/control", "bridge/forget", "cmd/plaspy-bridge/internal/broker", "cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd":                                {"bridge", "bridge/tick", "bridge/config", "bridge/ops", "bridge/sim", "publisher", "cmd/plaspy-bridge/internal/cli", "cmd/plaspy-bridge/internal/logging", "cmd/plaspy-bridge/internal/demo", "cmd/plaspy-bridge/internal/dlq", "cmd/plaspy-bridge/internal/inspect", "cmd/plaspy-bridge/internal/operate"},
}

// owner returns the folder of arrows that a package's folder belongs to.
func owner(folder string) (string, bool) {
	for ; folder != "." && folder != "/"; folder = path.Dir(folder) {
		if _, known := arrows[folder]; known {
			return folder, true
		}
	}
	return "", false
}

// source is one file of the module that is not a test.
type source struct {
	folder string // below the module's root, with slashes
	name   string
	file   *ast.File
}

// program is the module without its tests, parsed once for all tests of it.
var program = sync.OnceValues(func() ([]source, error) {
	return parse(func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
})

// sources are the files of the module, comments included. A test only reads them.
func sources(t *testing.T) []source {
	t.Helper()
	return found(t)(program())
}

// found fails the test if a list of files has an error or is too short.
func found(t *testing.T) func(all []source, err error) []source {
	return func(all []source, err error) []source {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) < 10 {
			t.Fatalf("only %d files found: the test looks in the wrong place", len(all))
		}
		return all
	}
}

// parse parses the module's Go files with the names that are wanted.
func parse(wanted func(name string) bool) (all []source, err error) {
	const root = ".."
	files := token.NewFileSet()
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (strings.HasPrefix(base, ".") || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || !wanted(base) {
			return nil
		}
		file, err := parser.ParseFile(files, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(folder), base, file})
		return nil
	})
	return all, err
}

// TestArrows fails on an import against the direction of the design.
func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		from, known := owner(s.folder)
		if !known {
			t.Errorf("%s/%s is not in the design", s.folder, s.name)
			continue
		}
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			folder, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			if to, _ := owner(folder); to != from && !slices.Contains(arrows[from], to) {
				t.Errorf("%s/%s imports %s: of this module, %s may import only %v", s.folder, s.name, folder, from, arrows[from])
			}
		}
	}
}

// TestOwner keeps TestArrows from passing because it looks folders up wrongly.
func TestOwner(t *testing.T) {
	for folder, want := range map[string]string{
		"auth": "auth", "bridge": "bridge", "bridge/sim/fleet": "bridge/sim/fleet", "bridge/plaspy/rawjson": "bridge/plaspy/rawjson", "bridge/plaspy/wire": "bridge/plaspy",
		"cmd/plaspy-bridge": "cmd", "cmd/plaspy-bridge/internal/demo": "cmd/plaspy-bridge/internal/demo", "bridge/simulator": "bridge", "util": "", ".": "",
	} {
		if got, known := owner(folder); got != want || known != (want != "") {
			t.Errorf("owner(%q) = %q, %t, want %q", folder, got, known, want)
		}
	}
}
