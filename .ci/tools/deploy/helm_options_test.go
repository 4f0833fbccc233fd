package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestHelmSecrets checks that every secret is taken from a secret, the API key as
// a file.
func TestHelmSecrets(t *testing.T) {
	m := template(t, `
nats: {url: 'tls://nats:4222', existingSecret: creds, credsKey: my.creds, nkeyKey: seed, userKey: user, passwordKey: password, tokenKey: token, tlsSecret: tls, caKey: ca.crt, certKey: tls.crt, keyKey: tls.key}
plaspy: {existingSecret: plaspy, apiKeyKey: key}
liveView: {existingSecret: view}
otel: {endpoint: 'https://collector', headersSecret: collector}
settings: {BRIDGE_POLL_INTERVAL: 30s, BRIDGE_WORKERS: 32, BRIDGE_BACKFILL: true, PLASPY_RATE_LIMIT: 1000000, BRIDGE_TRIP_START_WEIGHT: 1.5}
`)
	env := m.environment()
	for name, want := range map[string]string{
		"PLASPY_USERNAME": "plaspy/username", "PLASPY_API_KEY_FILE": "/run/secrets/plaspy/api-key", "NATS_URL": "tls://nats:4222",
		"NATS_CREDS": "/run/secrets/nats/creds", "NATS_NKEY": "/run/secrets/nats/nkey", "NATS_USER": "creds/user", "NATS_PASSWORD": "creds/password",
		"NATS_TOKEN": "creds/token", "NATS_CA": "/run/secrets/nats-tls/ca.crt", "NATS_CERT": "/run/secrets/nats-tls/tls.crt", "NATS_KEY": "/run/secrets/nats-tls/tls.key",
		"BRIDGE_HTTP_TOKEN": "view/token", "BRIDGE_POLL_INTERVAL": "30s", "BRIDGE_WORKERS": "32", "BRIDGE_BACKFILL": "true", "BRIDGE_STREAM_REPLICAS": "3", "PLASPY_RATE_LIMIT": "1000000", "BRIDGE_TRIP_START_WEIGHT": "1.5",
		"OTEL_EXPORTER_OTLP_HEADERS": "collector/headers",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	files := map[string]string{}
	mounts := map[string]string{}
	for _, mount := range m.deployment.Spec.Template.Spec.Containers[0].VolumeMounts {
		mounts[mount.Name] = mount.MountPath
		if mount.SubPath != "" || !mount.ReadOnly {
			t.Errorf("mount %+v", mount)
		}
	}
	for _, v := range m.deployment.Spec.Template.Spec.Volumes {
		for _, item := range v.Secret.Items {
			files[mounts[v.Name]+"/"+item.Path] = v.Secret.SecretName + "/" + item.Key
		}
	}
	want := map[string]string{"/run/secrets/plaspy/api-key": "plaspy/key", "/run/secrets/nats/creds": "creds/my.creds", "/run/secrets/nats/nkey": "creds/seed"}
	if !maps.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
}

func TestHelmOptions(t *testing.T) {
	m := template(t, needed+`
replicaCount: 1
serviceAccount: {create: false, name: mine}
fullnameOverride: bridge
affinity: {nodeAffinity: {}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]
extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /etc/ca, readOnly: true}]
`)
	if m.budget != nil {
		t.Error("one replica has a disruption budget, which would keep its node from being drained")
	}
	pod := m.deployment.Spec.Template.Spec
	if m.account != nil || pod.ServiceAccountName != "mine" {
		t.Errorf("service account %q", pod.ServiceAccountName)
	}
	if m.deployment.Name != "bridge" {
		t.Errorf("name %q", m.deployment.Name)
	}
	if len(pod.TopologySpreadConstraints) != 1 || pod.TopologySpreadConstraints[0].TopologyKey != "topology.kubernetes.io/zone" || pod.Affinity.NodeAffinity == nil {
		t.Errorf("placed by %v %v", pod.TopologySpreadConstraints, pod.Affinity)
	}
	if got := m.environment()["HTTPS_PROXY"]; got != "http://proxy:3128" {
		t.Errorf("proxy %q", got)
	}
	if v, mounts := pod.Volumes, pod.Containers[0].VolumeMounts; v[len(v)-1].ConfigMap == nil || mounts[len(mounts)-1].MountPath != "/etc/ca" {
		t.Errorf("volumes %v at %v", v, mounts)
	}
	off := template(t, needed+"networkPolicy: {enabled: false}\npodDisruptionBudget: {enabled: false}\n")
	if off.policy != nil || off.budget != nil {
		t.Error("objects that were switched off are rendered")
	}
}

func TestHelmTracing(t *testing.T) {
	tracing := func(values string) map[string]string {
		env := template(t, needed+values).environment()
		maps.DeleteFunc(env, func(name, _ string) bool { return !strings.HasPrefix(name, "OTEL_") })
		return env
	}
	if got := tracing(""); len(got) != 0 {
		t.Errorf("without an endpoint: %v", got)
	}
	want := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_SAMPLER": "traceidratio",
		"OTEL_TRACES_SAMPLER_ARG": "0", "OTEL_RESOURCE_ATTRIBUTES": "a=b", "OTEL_SERVICE_NAME": "fleet",
	}
	got := tracing(`
otel: {endpoint: 'http://collector:4317', protocol: grpc, sampler: traceidratio, samplerArg: 0, resourceAttributes: a=b}
settings: {OTEL_SERVICE_NAME: fleet}
`)
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHelmEgress(t *testing.T) {
	for _, tt := range []struct{ name, values, want string }{
		{"defaults", needed, "53 53; 443; 4222"},
		{"a server without a port", "plaspy: {existingSecret: x}\nnats: {url: 'tls://nats'}", "53 53; 443; 4222"},
		{"a cluster", "plaspy: {existingSecret: x}\nnats: {url: 'nats://a:4333, nats://b:4333,c:4334'}", "53 53; 443; 4333 4334"},
		{"websockets", "plaspy: {existingSecret: x}\nnats: {url: 'wss://[::1]/nats,ws://b'}", "53 53; 443; 443 80"},
		{"another API", needed + "settings: {PLASPY_BASE_URL: 'https://api.example.com:8443/plaspy'}", "53 53; 8443; 4222"},
		{"tracing", needed + "otel: {endpoint: 'http://collector.monitoring.svc:4318'}", "53 53; 443; 4222; 4318"},
		{"tracing over TLS", needed + "otel: {endpoint: 'https://collector'}", "53 53; 443; 4222; 443"},
		{
			"other value", needed + `
networkPolicy: {apiPort: 1, natsPort: 2, natsTo: [{podSelector: {}}], otlpPort: 3, otlpTo: [{podSelector: {}}], extraEgress: [{ports: [{port: 4}]}]}
otel: {endpoint: 'http://collector:4318'}
`, "53 53; 1; 2 to 1; 3 to 1; 4",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rules []string
			for _, rule := range template(t, tt.values).policy.Spec.Egress {
				var ports []string
				for _, p := range rule.Ports {
					ports = append(ports, p.Port.String())
				}
				if len(rule.To) > 0 {
					ports = append(ports, fmt.Sprint("to ", len(rule.To)))
				}
				rules = append(rules, strings.Join(ports, " "))
			}
			if got := strings.Join(rules, "; "); got != tt.want {
				t.Errorf("egress %s, want %s", got, tt.want)
			}
		})
	}
}

func TestHelmIngress(t *testing.T) {
	for _, tt := range []struct {
		name, values string
		namespaces   bool
	}{
		{"this namespace", "", false},
		{"Prometheus is elsewhere", "serviceMonitor: {enabled: true}", true},
		{"told", "networkPolicy: {ingressFrom: [{namespaceSelector: {}}]}", true},
		{"other value", "serviceMonitor: {enabled: true}\nnetworkPolicy: {ingressFrom: [{podSelector: {}}]}", false},
	} {
		from := template(t, needed+tt.values).policy.Spec.Ingress[0].From
		if len(from) != 1 || (from[0].NamespaceSelector != nil) != tt.namespaces || (from[0].PodSelector != nil) == tt.namespaces {
			t.Errorf("%s: %v", tt.name, from)
		}
	}
}

func TestHelmGrace(t *testing.T) {
	for _, tt := range []struct {
		values string
		want   int64
	}{
		{"", 30},
		{"settings: {BRIDGE_SHUTDOWN_TIMEOUT: 1m30s}", 100},
		{"settings: {BRIDGE_SHUTDOWN_TIMEOUT: 500ms}", 10},
		{"terminationGracePeriodSeconds: 21", 21},
		{"terminationGracePeriodSeconds: 6\nsettings: {BRIDGE_SHUTDOWN_TIMEOUT: 5s}", 6},
	} {
		m := template(t, needed+tt.values)
		if got := *m.deployment.Spec.Template.Spec.TerminationGracePeriodSeconds; got != tt.want {
			t.Errorf("%s: %d s, want %d", tt.values, got, tt.want)
		}
	}
}

func TestHelmMemory(t *testing.T) {
	for _, tt := range []struct{ limit, want string }{
		{"512Mi", "483183820"}, {"1.5Gi", "1449551462"}, {"1G", "900000000"}, {"100000000", "90000000"}, {"524288Ki", "483183820"}, {`"512e6"`, ""}, {"null", ""},
	} {
		m := template(t, needed+"resources: {limits: {memory: "+tt.limit+"}}")
		if got := m.environment()["GOMEMLIMIT"]; got != tt.want {
			t.Errorf("of %s: %q, want %q", tt.limit, got, tt.want)
		}
	}
	m := template(t, needed+"extraEnv: [{name: GOMEMLIMIT, value: 400MiB}]")
	if got := m.environment()["GOMEMLIMIT"]; got != "400MiB" {
		t.Errorf("other value: %q", got)
	}
	names := []string{}
	for _, v := range m.deployment.Spec.Template.Spec.Containers[0].Env {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("a variable is set twice: %v", names)
	}
}
