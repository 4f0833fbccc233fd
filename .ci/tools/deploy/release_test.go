package deploy

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
)

// TestRelease reads the release's configuration as goreleaser does, which takes
// no field that it does not know, and checks the flags that make builds reproducible.
func TestRelease(t *testing.T) {
	c, err := config.Load(filepath.Join(root, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Version != 2 || len(c.Builds) != 1 || len(c.Archives) != 1 || len(c.SBOMs) != 1 {
		t.Fatalf("version %d, %d builds, %d archives, %d SBOMs", c.Version, len(c.Builds), len(c.Archives), len(c.SBOMs))
	}
	b := c.Builds[0]
	if !slices.Equal(b.Goos, []string{"linux", "darwin", "windows"}) || !slices.Equal(b.Goarch, []string{"amd64", "arm64"}) {
		t.Errorf("for %v on %v", b.Goos, b.Goarch)
	}
	if !slices.Contains(b.Flags, "-trimpath") || !slices.Contains(b.Env, "CGO_ENABLED=0") || b.ModTimestamp != "{{ .CommitTimestamp }}" {
		t.Errorf("not reproducible: %v %v %q", b.Flags, b.Env, b.ModTimestamp)
	}
	flags := strings.Join(b.Ldflags, " ")
	for _, want := range []string{"-X main.version={{ .Version }}", "-X main.commit={{ .FullCommit }}"} {
		if !strings.Contains(flags, want) {
			t.Errorf("linked with %s, want %s", flags, want)
		}
	}
	if strings.Contains(flags, "Date") {
		t.Errorf("the build contains its time: %s", flags)
	}
	// The document and the printed version of a release are the release's own.
	hooks := ""
	for _, h := range c.Before.Hooks {
		hooks += h + "\n"
	}
	for _, want := range []string{`-X main.version={{ .Version }}" ./cmd/plaspy-bridge schema >.release/asyncapi.json`, ".ci/provenance {{ .Version }} {{ .FullCommit }} >.release/provenance.json"} {
		if !strings.Contains(hooks, want) {
			t.Errorf("before the build: %s, want %s", hooks, want)
		}
	}
	if len(c.Signs) != 2 || c.Signs[0].Artifacts != "checksum" || c.Signs[1].Artifacts != "checksum" {
		t.Errorf("signed: %+v", c.Signs)
	}
	if c.Checksum.Algorithm != "sha256" || c.Checksum.Disable {
		t.Errorf("checksums: %+v", c.Checksum)
	}
	for _, f := range c.Archives[0].Files {
		if strings.HasPrefix(f.Source, ".release/") {
			continue // made by a hook
		}
		if found, err := filepath.Glob(filepath.Join(root, f.Source)); err != nil || len(found) == 0 {
			t.Errorf("the archive has no %s", f.Source)
		}
		if f.Info.MTime != "{{ .CommitDate }}" || f.Info.Owner == "" {
			t.Errorf("%s has the builder's time or owner: %+v", f.Source, f.Info)
		}
	}
}
