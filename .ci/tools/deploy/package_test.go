package deploy

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packageOf builds the package of a format as goreleaser does, of a program that is
// given, and returns its path.
func packageOf(t *testing.T, format, program, version string) string {
	t.Helper()
	c, err := config.Load(filepath.Join(root, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.NFPMs) != 1 || !slices.Contains(c.NFPMs[0].Formats, format) {
		t.Fatalf("%d kinds of packages, or not as %s", len(c.NFPMs), format)
	}
	p := c.NFPMs[0]
	generated := t.TempDir()
	if err := os.WriteFile(filepath.Join(generated, "asyncapi.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(root) // the configuration's paths are relative to it
	contents := files.Contents{{Source: program, Destination: filepath.Join(p.Bindir, "plaspy-bridge"), FileInfo: &files.ContentFileInfo{Mode: 0o755}}}
	for _, content := range p.Contents {
		if name, ok := strings.CutPrefix(content.Source, ".release/"); ok {
			content.Source = filepath.Join(generated, name)
		}
		contents = append(contents, &files.Content{
			Source: content.Source, Destination: content.Destination, Type: content.Type,
			FileInfo: &files.ContentFileInfo{Owner: content.FileInfo.Owner, Group: content.FileInfo.Group, Mode: content.FileInfo.Mode},
		})
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: c.ProjectName, Arch: runtime.GOARCH, Platform: "linux", Version: version,
		Section: p.Section, Priority: p.Priority, Maintainer: p.Maintainer, Description: p.Description, License: p.License,
		MTime: time.Unix(1_700_000_000, 0),
		Overridables: nfpm.Overridables{
			Depends: p.Dependencies, Contents: contents, RPM: nfpm.RPM{BuildHost: p.RPM.BuildHost},
			Scripts: nfpm.Scripts{PreInstall: p.Scripts.PreInstall, PostInstall: p.Scripts.PostInstall, PreRemove: p.Scripts.PreRemove, PostRemove: p.Scripts.PostRemove},
		},
	})
	packager, err := nfpm.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errorsOf(nfpm.PrepareForPackager(info, format), packager.Package(info, &b)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), packager.ConventionalFileName(info))
	if keep := os.Getenv("KEEP_PACKAGES"); keep != "" { // for a trial by hand
		path = filepath.Join(keep, packager.ConventionalFileName(info))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// program returns the file that goes into the packages: PROGRAM, or a script.
func program(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("PROGRAM"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "plaspy-bridge")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDebianPackage builds the deb and reads it with Debian's own tool.
func TestDebianPackage(t *testing.T) {
	path := packageOf(t, "deb", program(t), "1.2.3")
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Log("left out: there is no dpkg-deb")
		return
	}
	output := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), dpkg, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg-deb %s: %v\n%s", args, err, out)
		}
		return string(out)
	}
	list := output("--contents", path)
	for name, mode := range map[string]string{
		"./usr/bin/plaspy-bridge":                          "-rwxr-xr-x root/root",
		"./usr/lib/systemd/system/plaspy-bridge.service":   "-rw-r--r-- root/root",
		"./usr/lib/sysusers.d/plaspy-bridge.conf":          "-rw-r--r-- root/root",
		"./etc/plaspy-bridge/":                             "drwx--x--x root/root",
		"./etc/plaspy-bridge/env":                          "-rw------- root/root",
		"./usr/share/doc/plaspy-bridge/docs/operations.md": "-rw-r--r-- root/root",
		"./usr/share/plaspy-bridge/asyncapi.json":          "-rw-r--r-- root/root",
		"./usr/share/plaspy-bridge/nats.conf":              "-rw-r--r-- root/root",
		"./usr/share/doc/plaspy-bridge/copyright":          "-rw-r--r-- root/root",
	} {
		if !slices.ContainsFunc(strings.Split(list, "\n"), func(line string) bool {
			return strings.HasPrefix(line, mode) && strings.HasSuffix(line, " "+name)
		}) {
			t.Errorf("no %s with %s in\n%s", name, mode, list)
		}
	}
	if files := output("--info", path, "conffiles"); strings.TrimSpace(files) != "/etc/plaspy-bridge/env" {
		t.Errorf("edited files that an upgrade keeps: %q", files)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if text := output("--info", path, script); !strings.HasPrefix(text, "#!/bin/sh\n") {
			t.Errorf("%s: %q", script, text)
		}
	}
}

// TestRPMPackage builds the rpm, and reads it if there is an rpm to read it with.
func TestRPMPackage(t *testing.T) {
	path := packageOf(t, "rpm", program(t), "1.2.3")
	if b, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	} else if host, err := os.Hostname(); err == nil && len(host) > 1 && bytes.Contains(b, []byte("\x00"+host+"\x00")) {
		t.Errorf("the package has the name of this machine, %s", host)
	}
	rpm, err := exec.LookPath("rpm")
	if err != nil {
		t.Log("left out: there is no rpm")
		return
	}
	out, err := exec.CommandContext(t.Context(), rpm, "--query", "--package", "--nosignature", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags} %{FILEMODES:perms}\n]", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "/etc/plaspy-bridge/env cn -rw-------\n") {
		t.Errorf("%v: want env as config(noreplace) in\n%s", err, out)
	}
}

// TestPackageScripts runs the scripts as dpkg and rpm do, with programs in their
// path that write down how they are called.
func TestPackageScripts(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Log("systemd runs here: its calls are recorded too")
	}
	for _, tt := range []struct {
		script string
		args   []string
		want   string // a part of the calls or the output
		not    string
	}{
		{"postinstall.sh", []string{"configure", ""}, "systemd-sysusers plaspy-bridge.conf", "try-restart"},
		{"postinstall.sh", []string{"configure", ""}, "api-key", "try-restart"},
		{"postinstall.sh", []string{"configure", "1.0.0"}, "systemd-sysusers plaspy-bridge.conf", "api-key"},
		{"postinstall.sh", []string{"1"}, "api-key", "try-restart"},
		{"postinstall.sh", []string{"2"}, "systemd-sysusers", "api-key"},
		{"postinstall.sh", []string{"abort-upgrade", "1.0.0"}, "", "systemd"},
		{"preremove.sh", []string{"upgrade", "1.2.4"}, "", "disable"},
		{"preremove.sh", []string{"1"}, "", "disable"},
		{"preremove.sh", []string{"remove"}, "", "api-key"},
		{"postremove.sh", []string{"remove"}, "", "rm "},
		{"postremove.sh", []string{"0"}, "", "rm "},
		{"postremove.sh", []string{"upgrade", "1.2.4"}, "", "rm "},
		{"postremove.sh", []string{"purge"}, "rm -rf /etc/plaspy-bridge", ""},
	} {
		t.Run(fmt.Sprint(tt.script, tt.args), func(t *testing.T) {
			bin := t.TempDir()
			for _, name := range []string{"systemctl", "systemd-sysusers", "useradd", "rm"} {
				stub := "#!/bin/sh\necho \"" + name + " $*\"\n"
				if err := os.WriteFile(filepath.Join(bin, name), []byte(stub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(root, "deploy/package", tt.script)}, tt.args...)...)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) || tt.not != "" && strings.Contains(string(out), tt.not) {
				t.Errorf("%v: %q, want %q and not %q", err, out, tt.want, tt.not)
			}
		})
	}
}
