package deploy

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// anyImage says of each base image that it exists and sets nothing, so that no
// registry is asked.
type anyImage struct{}

func (anyImage) ResolveSourceMetadata(context.Context, *pb.SourceOp, sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return nil, nil
}

func (anyImage) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, "", []byte(`{"os":"linux","config":{}}`), nil
}

// lintDockerfile is docker build --check.
func lintDockerfile(t *testing.T, text []byte) []string {
	t.Helper()
	source := llb.Local("context")
	definition, err := source.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines := llb.NewSourceMap(&source, "Dockerfile", "dockerfile", text)
	lines.Definition = definition
	found, err := dockerfile2llb.DockerfileLint(t.Context(), text, dockerfile2llb.ConvertOpt{MetaResolver: anyImage{}, SourceMap: lines})
	if err != nil {
		t.Fatal(err)
	}
	var says []string
	for _, w := range found.Warnings {
		says = append(says, w.RuleName+": "+w.Detail)
	}
	if found.Error != nil {
		says = append(says, found.Error.Message)
	}
	return says
}

func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range lintDockerfile(t, text) {
		t.Error(w)
	}
	if len(lintDockerfile(t, []byte("from scratch\nCOPY --form=x a b\n"))) == 0 || len(lintDockerfile(t, []byte("FROM scratch as X\nENV a b\n"))) == 0 {
		t.Error("the faults are not found")
	}
	// It copies exactly the folders that the program needs.
	copied := []string{}
	for _, m := range regexp.MustCompile(`(?m)^COPY (\w+) \w+$`).FindAllSubmatch(text, -1) {
		copied = append(copied, string(m[1]))
	}
	if want := []string{"auth", "bridge", "cmd", "publisher"}; !slices.Equal(copied, want) {
		t.Errorf("copies %v, want %v", copied, want)
	}
}
