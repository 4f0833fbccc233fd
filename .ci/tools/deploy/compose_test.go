package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

// passwords are the variables that the compose file requires.
var passwords = []string{"PLASPY_USERNAME=u", "BRIDGE_PASSWORD=b", "QUERY_PASSWORD=q", "SUBSCRIBER_PASSWORD=s", "GATEWAY_PASSWORD=g", "OPERATOR_PASSWORD=o", "SYSTEM_PASSWORD=y"}

func compose(t *testing.T, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{root + "/deploy/compose.yaml"}, cli.WithEnv(env), cli.WithDefaultProfiles(), cli.WithInterpolation(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		return nil, err
	}
	return p.WithServicesEnvironmentResolved(true)
}

func TestCompose(t *testing.T) {
	p, err := compose(t, append(passwords, "COMPOSE_PROFILES=tracing")...)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.ServiceNames(); !slices.Equal(got, []string{"bridge", "grafana", "jaeger", "nats", "prometheus"}) {
		t.Errorf("services %v", got)
	}
	for name, s := range p.Services {
		hardened(t, name, s)
	}
	bridge := p.Services["bridge"]
	if *bridge.Environment["PLASPY_API_KEY_FILE"] != "/run/secrets/plaspy-api-key" || len(bridge.Secrets) != 1 || bridge.Secrets[0].Source != "plaspy-api-key" {
		t.Errorf("the API key: %v", bridge.Secrets)
	}
	for _, of := range []struct{ service, on string }{{"bridge", "nats"}, {"grafana", "prometheus"}} {
		if p.Services[of.service].DependsOn[of.on].Condition != types.ServiceConditionHealthy || p.Services[of.on].HealthCheck == nil {
			t.Errorf("%s starts with %v", of.service, p.Services[of.service].DependsOn)
		}
	}
	if p.Services["grafana"].HealthCheck == nil {
		t.Error("no service waits for Grafana")
	}
	if !bridge.ReadOnly {
		t.Error("the bridge can write to its file system")
	}
	if grace := bridge.StopGracePeriod; grace == nil || time.Duration(*grace) <= 20*time.Second {
		t.Errorf("the bridge is killed after %v", grace)
	}
}

// hardened checks the restrictions that every service on a production machine needs.
func hardened(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	if !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		t.Errorf("%s keeps privileges: %v %v", name, s.CapDrop, s.SecurityOpt)
	}
	if s.Restart != "unless-stopped" {
		t.Errorf("%s restarts %q", name, s.Restart)
	}
	if s.Logging == nil || s.Logging.Options["max-size"] == "" {
		t.Errorf("%s logs until the disk is full", name)
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

func TestComposeWantsPasswords(t *testing.T) {
	for i, missing := range passwords {
		name, _, _ := strings.Cut(missing, "=")
		env := slices.Delete(slices.Clone(passwords), i, i+1)
		if _, err := compose(t, env...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestComposeTraces(t *testing.T) {
	for _, tt := range []struct {
		name     string
		env      []string
		endpoint string
		jaeger   bool
	}{
		{"off", nil, "", false},
		{"with the profile", []string{"COMPOSE_PROFILES=tracing"}, "http://jaeger:4318", true},
		{"to another collector", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://c"}, "https://c", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := compose(t, append(slices.Clone(passwords), tt.env...)...)
			if err != nil {
				t.Fatal(err)
			}
			env := p.Services["bridge"].Environment
			if got := *env["OTEL_EXPORTER_OTLP_ENDPOINT"]; got != tt.endpoint {
				t.Errorf("traces go to %q, want %q", got, tt.endpoint)
			}
			if _, ok := p.Services["jaeger"]; ok != tt.jaeger {
				t.Errorf("jaeger runs: %t", ok)
			}
			// None is not set, other than an empty one.
			if sampler := env["OTEL_TRACES_SAMPLER"]; sampler != nil {
				t.Errorf("the sampler is %q without having been set", *sampler)
			}
		})
	}
	p, err := compose(t, append(passwords, "OTEL_TRACES_SAMPLER=always_off")...)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Services["bridge"].Environment["OTEL_TRACES_SAMPLER"]; got == nil || *got != "always_off" {
		t.Errorf("sampler %v", got)
	}
}

// TestGrafanaFindsThem checks that each data source is a service of the compose
// file, at that service's port.
func TestGrafanaFindsThem(t *testing.T) {
	files, err := filepath.Glob(root + "/deploy/grafana/provisioning/datasources/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var provisioned struct {
			Datasources []struct{ Name, UID, Type, URL string }
		}
		if err := yaml.Unmarshal(text, &provisioned); err != nil {
			t.Fatal(err)
		}
		for _, s := range provisioned.Datasources {
			if port := map[string]string{"prometheus": "9090", "jaeger": "16686"}[s.Type]; port == "" || s.URL != "http://"+s.UID+":"+port {
				t.Errorf("%s is at %s", s.Name, s.URL)
			}
		}
	}
}
