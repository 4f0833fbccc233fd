package deploy

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// passwords are what the compose file wants to be told.
var passwords = []string{"PLASPY_USERNAME=u", "BRIDGE_PASSWORD=b", "SUBSCRIBER_PASSWORD=s", "GATEWAY_PASSWORD=g", "OPERATOR_PASSWORD=o"}

func compose(t *testing.T, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{root + "/deploy/compose.yaml"}, cli.WithEnv(env), cli.WithInterpolation(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	p, err := compose(t, passwords...)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.ServiceNames(); !slices.Equal(got, []string{"bridge", "grafana", "nats", "prometheus"}) {
		t.Errorf("services %v", got)
	}
	for name, s := range p.Services {
		if !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps privileges: %v %v", name, s.CapDrop, s.SecurityOpt)
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s restarts %q", name, s.Restart)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s is open to other machines at %v", name, port)
			}
		}
		if s.Build == nil && !strings.Contains(s.Image, ":") {
			t.Errorf("%s has no version of its image: %s", name, s.Image)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				found, err := filepath.Glob(v.Source)
				if err != nil || len(found) != 1 || !v.ReadOnly {
					t.Errorf("%s mounts %s, read-only %t: %v %v", name, v.Source, v.ReadOnly, found, err)
				}
			}
		}
	}
	bridge := p.Services["bridge"]
	if *bridge.Environment["PLASPY_API_KEY_FILE"] != "/run/secrets/plaspy-api-key" || len(bridge.Secrets) != 1 || bridge.Secrets[0].Source != "plaspy-api-key" {
		t.Errorf("the API key: %v", bridge.Secrets)
	}
	if bridge.DependsOn["nats"].Condition != types.ServiceConditionHealthy || p.Services["nats"].HealthCheck == nil {
		t.Errorf("the bridge starts with %v", bridge.DependsOn)
	}
	if !bridge.ReadOnly {
		t.Error("the bridge can write to its file system")
	}
}

func TestComposeWantsPasswords(t *testing.T) {
	for i, missing := range passwords {
		name, _, _ := strings.Cut(missing, "=")
		env := slices.Delete(slices.Clone(passwords), i, i+1)
		if _, err := compose(t, env...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
