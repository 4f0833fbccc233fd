package process

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Binaries are the paths of the programs under test.
type Binaries struct {
	Bridge string // cmd/plaspy-bridge
	Broker string // nats-server, in the version of go.mod
}

// Build builds both programs into dir with the go tool, which has to be in the path. The
// working directory has to be inside the module. With race the bridge looks for data races,
// and ends with status 66 if it finds one.
func Build(ctx context.Context, dir string, race bool) (Binaries, error) {
	b := Binaries{Bridge: filepath.Join(dir, "plaspy-bridge"), Broker: filepath.Join(dir, "nats-server")}
	bridge := []string{"build", "-o", b.Bridge}
	if race {
		bridge = append(bridge, "-race")
	}
	for _, args := range [][]string{
		append(bridge, "plaspy-bridge/cmd/plaspy-bridge"),
		{"build", "-o", b.Broker, "github.com/nats-io/nats-server/v2"},
	} {
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return b, fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	return b, nil
}
