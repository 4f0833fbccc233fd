package bridge_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "plaspy-bridge"

// arrows are the imports among the module's own packages: each folder with Go files, and the others that its
// files import, tests left out.
var arrows = map[string][]string{
	"auth":                        {"auth/backoff", "auth/isotime", "auth/redact"},
	"auth/backoff":                nil,
	"auth/isotime":                nil,
	"auth/logtest":                nil, // tests only
	"auth/redact":                 nil,
	"publisher":                   nil,
	"publisher/embedded":          {"auth/redact"},
	"publisher/natstest":          {"publisher", "publisher/natstest/loopback"}, // tests only
	"publisher/natstest/loopback": nil,                                          // tests only

	"bridge": {
		"auth", "bridge/config", "bridge/control", "bridge/feed", "bridge/forget", "bridge/glob",
		"bridge/inbound", "bridge/inbound/deadletter", "bridge/inbound/echo", "bridge/inbound/message",
		"bridge/ops", "bridge/outbound", "bridge/outbound/inventory", "bridge/outbound/memory",
		"bridge/outbound/quota", "bridge/outbound/schedule", "bridge/outbound/widespread", "bridge/plaspy", "bridge/plaspy/daily",
		"bridge/query", "bridge/replica", "bridge/streams", "bridge/tick", "bridge/trace", "bridge/view",
		"publisher", "publisher/embedded",
	},
	"bridge/config": {
		"auth/redact", "bridge/glob", "bridge/inbound/message", "bridge/tick", "bridge/trace", "publisher",
		"publisher/embedded",
	},
	"bridge/config/configtest": {"bridge/config"}, // tests only
	"bridge/control":           {"auth/redact", "bridge/glob", "bridge/tick", "publisher"},
	"bridge/feed":              {"publisher"},
	"bridge/forget":            {"auth/backoff", "bridge/control", "publisher"},
	"bridge/glob":              nil,
	"bridge/heap":              nil,
	"bridge/inbound": {
		"auth/backoff", "bridge/inbound/echo", "bridge/inbound/lane", "bridge/inbound/message", "bridge/plaspy", "bridge/tick",
		"bridge/trace", "publisher",
	},
	"bridge/inbound/deadletter": {"auth/redact", "bridge/inbound/message", "publisher"},
	"bridge/inbound/echo":       {"auth/backoff", "bridge/inbound/message", "publisher"},
	"bridge/inbound/lane":       nil,
	"bridge/inbound/message":    {"auth/isotime", "auth/redact", "bridge/plaspy/rawjson", "publisher"},
	"bridge/ops":                nil,
	"bridge/outbound": {
		"auth/backoff", "bridge/outbound/decision", "bridge/outbound/gap", "bridge/outbound/inventory", "bridge/outbound/quota",
		"bridge/outbound/schedule", "bridge/outbound/track", "bridge/outbound/widespread", "bridge/plaspy", "bridge/tick", "bridge/trace",
		"publisher",
	},
	"bridge/outbound/decision": {"bridge/outbound/track", "publisher"},
	"bridge/outbound/gap": {
		"bridge/outbound/quota", "bridge/outbound/track", "bridge/plaspy", "bridge/plaspy/rawjson", "publisher",
	},
	"bridge/outbound/inventory": {
		"auth/backoff", "bridge/glob", "bridge/plaspy", "bridge/plaspy/rawjson", "bridge/trace", "publisher",
	},
	"bridge/outbound/memory":            {"bridge/tick", "publisher"},
	"bridge/outbound/quota":             {"publisher"},
	"bridge/outbound/schedule":          {"bridge/outbound/schedule/forecast"},
	"bridge/outbound/schedule/forecast": nil,
	"bridge/outbound/track":             {"bridge/plaspy/rawjson", "publisher"},
	"bridge/outbound/widespread":        nil,
	"bridge/plaspy":                     {"auth", "auth/isotime", "bridge/plaspy/daily", "bridge/plaspy/rawjson", "bridge/trace"},
	"bridge/plaspy/daily":               nil,
	"bridge/plaspy/rawjson":             nil,
	"bridge/preflight": {
		"auth", "bridge/config", "bridge/control", "bridge/inbound", "bridge/inbound/deadletter",
		"bridge/inbound/echo", "bridge/ops", "bridge/outbound/inventory", "bridge/plaspy", "bridge/query",
		"bridge/replica", "bridge/streams", "bridge/trace", "publisher", "publisher/embedded",
	},
	"bridge/query":              {"auth", "auth/redact", "bridge/plaspy", "bridge/plaspy/rawjson", "bridge/trace", "publisher"},
	"bridge/replica":            {"bridge/replica/clock", "bridge/replica/plan", "bridge/replica/rendezvous", "bridge/tick", "publisher"},
	"bridge/replica/clock":      nil,
	"bridge/replica/plan":       {"bridge/replica/rendezvous"},
	"bridge/replica/rendezvous": nil,
	"bridge/schema":             {"publisher"},
	"bridge/schema/plaspy":      nil, // printed by schema --types go
	"bridge/streams":            {"bridge/ops", "bridge/tick", "publisher"},
	"bridge/tick":               nil,
	"bridge/trace":              {"auth/redact"},
	"bridge/trace/tracetest":    nil, // tests only
	"bridge/view":               {"bridge/tick"},

	"bridge/harness": {
		"bridge/harness/front", "bridge/harness/judge", "bridge/harness/natsserver", "bridge/harness/network",
		"bridge/harness/process", "bridge/harness/timeline", "bridge/sim", "bridge/sim/fault",
		"bridge/sim/fleet", "publisher", "publisher/natstest/loopback",
	},
	"bridge/harness/cost": {
		"bridge/harness/natsserver", "bridge/harness/process", "bridge/sim", "publisher",
		"publisher/natstest/loopback",
	},
	"bridge/harness/cpu": nil,
	"bridge/harness/front": {
		"bridge/harness/judge", "bridge/harness/network", "bridge/sim", "publisher/natstest/loopback",
	},
	"bridge/harness/judge":   {"bridge/harness/timeline", "publisher"},
	"bridge/harness/machine": {"bridge/harness/process"},
	"bridge/harness/natsserver": {
		"bridge/harness/judge", "bridge/harness/process", "bridge/harness/timeline", "publisher",
	},
	"bridge/harness/network":  {"bridge/harness/timeline", "publisher/natstest/loopback"},
	"bridge/harness/process":  {"bridge/harness/timeline"},
	"bridge/harness/timeline": nil,
	"bridge/mutation":         nil,
	"bridge/sim": {
		"bridge/sim/account", "bridge/sim/fault", "bridge/sim/fleet", "bridge/sim/inprocess", "bridge/sim/route",
		"bridge/sim/token",
	},
	"bridge/sim/account":   {"bridge/sim/fault", "bridge/sim/fleet", "bridge/sim/route"},
	"bridge/sim/fault":     {"bridge/sim/route"},
	"bridge/sim/fleet":     nil,
	"bridge/sim/inprocess": nil,
	"bridge/sim/route":     nil,
	"bridge/sim/token":     nil,

	"cmd/plaspy-bridge": {
		"bridge", "bridge/config", "bridge/ops", "bridge/preflight", "bridge/schema", "bridge/sim",
		"bridge/tick", "cmd/plaspy-bridge/internal/cli", "cmd/plaspy-bridge/internal/demo",
		"cmd/plaspy-bridge/internal/dlq", "cmd/plaspy-bridge/internal/inspect",
		"cmd/plaspy-bridge/internal/logging", "cmd/plaspy-bridge/internal/operate", "publisher",
	},
	"cmd/plaspy-bridge/internal/broker":  {"bridge/config", "cmd/plaspy-bridge/internal/cli", "publisher"},
	"cmd/plaspy-bridge/internal/cli":     {"bridge/config", "publisher"},
	"cmd/plaspy-bridge/internal/clitest": {"cmd/plaspy-bridge/internal/cli", "publisher/natstest"}, // tests only
	"cmd/plaspy-bridge/internal/demo": {
		"bridge", "bridge/config", "bridge/ops", "bridge/sim", "bridge/sim/account", "bridge/sim/fleet",
		"cmd/plaspy-bridge/internal/logging", "publisher",
	},
	"cmd/plaspy-bridge/internal/dlq": {
		"auth/redact", "bridge/config", "bridge/inbound/deadletter", "cmd/plaspy-bridge/internal/broker",
		"cmd/plaspy-bridge/internal/cli", "publisher",
	},
	"cmd/plaspy-bridge/internal/inspect": {
		"bridge/config", "bridge/ops", "bridge/outbound", "cmd/plaspy-bridge/internal/broker",
		"cmd/plaspy-bridge/internal/cli", "publisher",
	},
	"cmd/plaspy-bridge/internal/logging": {"bridge/config", "bridge/ops", "cmd/plaspy-bridge/internal/cli"},
	"cmd/plaspy-bridge/internal/operate": {
		"bridge/config", "bridge/control", "bridge/forget", "cmd/plaspy-bridge/internal/broker",
		"cmd/plaspy-bridge/internal/cli", "publisher",
	},

	"deploy/examples/alerts":  {"deploy/examples/plaspy"},
	"deploy/examples/durable": {"deploy/examples/plaspy"},
	"deploy/examples/gateway": {"deploy/examples/plaspy"},
	"deploy/examples/latest":  {"deploy/examples/plaspy"},
	"deploy/examples/plaspy":  nil,
	"deploy/examples/replay":  nil,
	"deploy/examples/traced":  nil,
	"deploy/examples/workers": {"deploy/examples/plaspy"},
}

// pure are the packages of rules alone: their functions get times and answers as arguments and return the
// actions.
var pure = []string{
	"bridge/glob",
	"bridge/heap",
	"bridge/inbound/lane",
	"bridge/inbound/message",
	"bridge/outbound/schedule",
	"bridge/outbound/schedule/forecast",
	"bridge/outbound/track",
	"bridge/plaspy/daily",
	"bridge/plaspy/rawjson",
	"bridge/replica/plan",
	"bridge/replica/rendezvous",
}

// impure are the imports that a pure package does not have, and the functions of others that it does not call.
var impure = map[string]bool{
	"context": true, "io": true, "log/slog": true, "math/rand/v2": true, "net": true, "net/http": true, "os": true,
	"sync/atomic": true, "github.com/nats-io/nats.go": true, "github.com/nats-io/nats.go/jetstream": true,

	"sync.Mutex": true, "sync.RWMutex": true, "sync.WaitGroup": true, "sync.Once": true, "sync.Map": true, "sync.Cond": true,
	"time.Now": true, "time.Since": true, "time.Until": true, "time.Sleep": true, "time.After": true,
	"time.AfterFunc": true, "time.NewTimer": true, "time.NewTicker": true, "time.Tick": true,
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

// imports are the packages that a file imports.
func imports(t *testing.T, s source) (all []string) {
	t.Helper()
	for _, spec := range s.file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, imported)
	}
	return all
}

// TestArrows fails on an import against the direction of the design, and on a row or a permission that no file needs.
func TestArrows(t *testing.T) {
	used := map[string]map[string]bool{}
	for _, s := range sources(t) {
		allowed, known := arrows[s.folder]
		if !known && used[s.folder] == nil {
			t.Errorf("%s has no row in arrows", s.folder)
		}
		if used[s.folder] == nil {
			used[s.folder] = map[string]bool{}
		}
		for _, imported := range imports(t, s) {
			folder, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			used[s.folder][folder] = true
			if known && !slices.Contains(allowed, folder) {
				t.Errorf("%s/%s imports %s: of this module, %s may import only %v", s.folder, s.name, folder, s.folder, allowed)
			}
		}
	}
	for folder, allowed := range arrows {
		if used[folder] == nil {
			t.Errorf("%s has a row in arrows, and no Go files", folder)
			continue
		}
		for _, to := range allowed {
			if !used[folder][to] {
				t.Errorf("%s does not import %s: take the permission out of arrows", folder, to)
			}
		}
	}
}

// TestPure fails if a package of rules alone reads the clock, starts a goroutine or could do I/O.
func TestPure(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.folder) {
			continue
		}
		seen[s.folder] = true
		for _, imported := range imports(t, s) {
			if impure[imported] {
				t.Errorf("%s/%s imports %s: the package is pure", s.folder, s.name, imported)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s/%s starts a goroutine: the package is pure", s.folder, s.name)
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && impure[of.Name+"."+n.Sel.Name] {
					t.Errorf("%s/%s uses %s.%s: the package is pure", s.folder, s.name, of.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
	for _, folder := range pure {
		if !seen[folder] {
			t.Errorf("%s is pure, and no package", folder)
		}
	}
}
