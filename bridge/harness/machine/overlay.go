//go:build linux

package machine

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"plaspy-bridge/bridge/harness/process"
)

// std has the files that are added to packages of the standard library.
//
//go:embed std
var std embed.FS

// patch replaces one line of the standard library.
type patch struct{ file, old, with string }

// patches replaces the lines that have to read the [Control].
func patches() []patch {
	return []patch{
		{"time/time.go", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := machineNow()\n"},
		{"os/file.go", "\tn, e := f.write(b)\n", "\tn, e := f.machineWrite(b)\n"},
		{"os/file.go", "\t\tm, e := f.pwrite(b, off)\n", "\t\tm, e := f.machineWriteAt(b, off)\n"},
		{"os/file_posix.go", "\tif e := f.pfd.Fsync(); e != nil {\n", "\tif e := f.machineSync(); e != nil {\n"},
		{"syscall/zsyscall_linux_" + runtime.GOARCH + ".go", "func Statfs(path string, buf *Statfs_t) (err error) {\n", "func machineStatfs(path string, buf *Statfs_t) (err error) {\n"},
	}
}

// Build is [process.Build] with the patched standard library. Without the environment of a
// [Control] a program behaves as usual.
func Build(ctx context.Context, dir string) (process.Binaries, error) {
	b := process.Binaries{Bridge: filepath.Join(dir, "plaspy-bridge"), Broker: filepath.Join(dir, "nats-server")}
	root, err := goroot(ctx)
	if err != nil {
		return b, err
	}
	list, err := overlay(filepath.Join(root, "src"), filepath.Join(dir, "std"), patches())
	if err != nil {
		return b, err
	}
	// One call, so that the standard library is compiled once.
	args := []string{"build", "-overlay", list, "-o", dir + string(filepath.Separator), "plaspy-bridge/cmd/plaspy-bridge", "github.com/nats-io/nats-server/v2"}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return b, fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return b, nil
}

func goroot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// overlay writes the changed files into dir and returns the name of their list for go
// build.
func overlay(src, dir string, patches []patch) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("machine: %w", err)
	}
	replace := map[string]string{}
	put := func(file, text string) error {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		replace[filepath.Join(src, filepath.FromSlash(file))] = path
		return os.WriteFile(path, []byte(text), 0o600)
	}
	changed, err := apply(src, patches)
	if err != nil {
		return "", err
	}
	for _, pkg := range []string{"syscall", "time", "os"} {
		added, err := std.ReadFile("std/" + pkg + ".go.txt")
		if err != nil {
			return "", fmt.Errorf("machine: %w", err)
		}
		changed[pkg+"/machine.go"] = string(added)
	}
	for file, text := range changed {
		if err := put(file, text); err != nil {
			return "", fmt.Errorf("machine: %w", err)
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("machine: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		return "", fmt.Errorf("machine: %w", err)
	}
	return path, nil
}

// apply returns the patched text of each file that has a patch.
func apply(src string, patches []patch) (map[string]string, error) {
	changed := map[string]string{}
	for _, p := range patches {
		text, read := changed[p.file]
		if !read {
			b, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(p.file)))
			if err != nil {
				return nil, fmt.Errorf("machine: Go's standard library is not as %s knows it: %w", runtime.Version(), err)
			}
			text = string(b)
		}
		if n := strings.Count(text, p.old); n != 1 {
			return nil, fmt.Errorf("machine: %s of %s has %d times, not once, what is to be replaced there: %q; see what took its place and change the patch",
				p.file, runtime.Version(), n, p.old)
		}
		changed[p.file] = strings.Replace(text, p.old, p.with, 1)
	}
	return changed, nil
}
