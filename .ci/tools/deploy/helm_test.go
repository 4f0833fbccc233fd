package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../../.."
	charts = root + "/deploy/helm/plaspy-bridge"
)

// needed are the values that a release has to have.
const needed = "plaspy: {existingSecret: plaspy}\nnats: {url: 'nats://nats:4222'}\n"

func values(t *testing.T, text string) chartutil.Values {
	t.Helper()
	v, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestHelmLint(t *testing.T) {
	linter := lint.AllWithKubeVersion(charts, values(t, needed), "test", &chartutil.KubeVersion{Version: "v1.31.0", Major: "1", Minor: "31"})
	for _, m := range linter.Messages {
		if m.Severity >= support.WarningSev {
			t.Errorf("%s", m)
		}
	}
}

// manifests is what a release consists of.
type manifests struct {
	deployment *appsv1.Deployment
	service    *corev1.Service
	account    *corev1.ServiceAccount
	budget     *policyv1.PodDisruptionBudget
	policy     *networkingv1.NetworkPolicy
	monitor    map[string]any
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(charts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func render(c *chart.Chart, v chartutil.Values) (map[string]string, error) {
	all, err := chartutil.ToRenderValues(c, v, chartutil.ReleaseOptions{Name: "fleet", Namespace: "test", IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// template renders the chart and reads each manifest into the type that
// Kubernetes has for it; a field that it does not have is an error.
func template(t *testing.T, text string) manifests {
	t.Helper()
	files, err := render(load(t), values(t, needed+text))
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for name, body := range files {
		if strings.TrimSpace(body) == "" || strings.HasSuffix(name, ".txt") {
			continue
		}
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(body), &kind); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 Deployment":
			into = &m.deployment
		case "v1 Service":
			into = &m.service
		case "v1 ServiceAccount":
			into = &m.account
		case "policy/v1 PodDisruptionBudget":
			into = &m.budget
		case "networking.k8s.io/v1 NetworkPolicy":
			into = &m.policy
		case "monitoring.coreos.com/v1 ServiceMonitor":
			into = &m.monitor
		default:
			t.Fatalf("%s is a %v", name, kind)
		}
		if err := yaml.UnmarshalStrict([]byte(body), into); err != nil {
			t.Errorf("%s: %v\n%s", name, err, body)
		}
	}
	return m
}

func TestHelmDefaults(t *testing.T) {
	m := template(t, "")
	if m.deployment == nil || m.service == nil || m.account == nil || m.budget == nil || m.policy == nil || m.monitor != nil {
		t.Fatalf("rendered %+v", m)
	}
	pod := m.deployment.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	if *m.deployment.Spec.Replicas != 2 {
		t.Errorf("%d replicas", *m.deployment.Spec.Replicas)
	}
	for name, probe := range map[string]*corev1.Probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != name || probe.HTTPGet.Port.String() != "http" {
			t.Errorf("probe of %s: %v", name, probe)
		}
	}
	if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources %v", c.Resources)
	}
	if *pod.TerminationGracePeriodSeconds <= 20 {
		t.Errorf("killed after %d s, before BRIDGE_SHUTDOWN_TIMEOUT", *pod.TerminationGracePeriodSeconds)
	}
	restricted(t, &pod)
	for _, selector := range []map[string]string{m.deployment.Spec.Selector.MatchLabels, m.service.Spec.Selector, m.budget.Spec.Selector.MatchLabels, m.policy.Spec.PodSelector.MatchLabels} {
		for label, value := range selector {
			if got := m.deployment.Spec.Template.Labels[label]; got != value {
				t.Errorf("selector %s=%s, the pods have %q", label, value, got)
			}
		}
		if len(selector) < 2 {
			t.Errorf("selector %v", selector)
		}
	}
}

// restricted checks the pod security standard of that name.
func restricted(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	s, c := pod.SecurityContext, pod.Containers[0].SecurityContext
	if s == nil || !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod: %v", s)
	}
	if c == nil || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(c.Capabilities.Add) > 0 {
		t.Errorf("container: %v", c)
	}
	if *pod.AutomountServiceAccountToken || pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("the pod has more of its host, or of the API server, than it needs")
	}
	for _, v := range pod.Volumes {
		if v.Secret == nil {
			t.Errorf("volume %s is no secret", v.Name)
		}
	}
}

// TestHelmSecrets wants every secret to be taken from a secret, the API key as
// a file.
func TestHelmSecrets(t *testing.T) {
	m := template(t, `
nats: {url: 'tls://nats:4222', existingSecret: creds, credsKey: my.creds, nkeyKey: seed, userKey: user, passwordKey: password, tokenKey: token, tlsSecret: tls, caKey: ca.crt, certKey: tls.crt, keyKey: tls.key}
plaspy: {existingSecret: plaspy, apiKeyKey: key}
liveView: {existingSecret: view}
settings: {BRIDGE_POLL_INTERVAL: 30s, BRIDGE_WORKERS: 32, BRIDGE_BACKFILL: true}
`[1:])
	env := map[string]string{}
	for _, v := range m.deployment.Spec.Template.Spec.Containers[0].Env {
		if _, twice := env[v.Name]; twice {
			t.Errorf("%s is set twice", v.Name)
		}
		env[v.Name] = v.Value
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			env[v.Name] = v.ValueFrom.SecretKeyRef.Name + "/" + v.ValueFrom.SecretKeyRef.Key
		}
	}
	for name, want := range map[string]string{
		"PLASPY_USERNAME": "plaspy/username", "PLASPY_API_KEY_FILE": "/run/secrets/plaspy/api-key", "NATS_URL": "tls://nats:4222",
		"NATS_CREDS": "/run/secrets/nats/creds", "NATS_NKEY": "/run/secrets/nats/nkey", "NATS_USER": "creds/user", "NATS_PASSWORD": "creds/password",
		"NATS_TOKEN": "creds/token", "NATS_CA": "/run/secrets/nats-tls/ca.crt", "NATS_CERT": "/run/secrets/nats-tls/tls.crt", "NATS_KEY": "/run/secrets/nats-tls/tls.key",
		"BRIDGE_HTTP_TOKEN": "view/token", "BRIDGE_POLL_INTERVAL": "30s", "BRIDGE_WORKERS": "32", "BRIDGE_BACKFILL": "true", "BRIDGE_STREAM_REPLICAS": "3",
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
	if fmt.Sprint(files) != fmt.Sprint(want) {
		t.Errorf("files %v, want %v", files, want)
	}
}

func TestHelmOptions(t *testing.T) {
	m := template(t, `
replicaCount: 1
serviceMonitor: {enabled: true, labels: {release: prometheus}}
serviceAccount: {create: false, name: mine}
networkPolicy: {natsTo: [{podSelector: {matchLabels: {app: nats}}}], extraEgress: [{ports: [{port: 4318}]}], ingressFrom: [{namespaceSelector: {}}]}
fullnameOverride: bridge
`[1:])
	if m.budget != nil {
		t.Error("one replica has a disruption budget, which would keep its node from being drained")
	}
	if m.account != nil || m.deployment.Spec.Template.Spec.ServiceAccountName != "mine" {
		t.Errorf("service account %q", m.deployment.Spec.Template.Spec.ServiceAccountName)
	}
	if m.deployment.Name != "bridge" {
		t.Errorf("name %q", m.deployment.Name)
	}
	spec, _ := m.monitor["spec"].(map[string]any)
	if spec["jobLabel"] != "app.kubernetes.io/name" || m.service.Labels["app.kubernetes.io/name"] != "plaspy-bridge" {
		t.Errorf("monitor %v of service %v: the alert rules want the job plaspy-bridge", spec, m.service.Labels)
	}
	ports := []string{}
	for _, rule := range m.policy.Spec.Egress {
		for _, p := range rule.Ports {
			ports = append(ports, fmt.Sprint(p.Port, len(rule.To)))
		}
	}
	if got := strings.Join(ports, " "); got != "53 0 53 0 443 0 4222 1 4318 0" {
		t.Errorf("egress %s", got)
	}
	if from := m.policy.Spec.Ingress[0].From; len(from) != 1 || from[0].NamespaceSelector == nil {
		t.Errorf("ingress %v", from)
	}
	if off := template(t, "networkPolicy: {enabled: false}\npodDisruptionBudget: {enabled: false}\n"); off.policy != nil || off.budget != nil {
		t.Error("what was switched off is there")
	}
}

func TestHelmRefuses(t *testing.T) {
	for _, tt := range []struct{ name, values, says string }{
		{"no secret", "nats: {url: x}", "plaspy.existingSecret"},
		{"no NATS", "plaspy: {existingSecret: x}", "nats.url"},
		{"credentials of no secret", needed[:len(needed)-2] + ", credsKey: c}\n", "nats.existingSecret"},
		{"certificates of no secret", needed[:len(needed)-2] + ", caKey: c}\n", "nats.tlsSecret"},
		{"a key as a setting", needed + "settings: {PLASPY_API_KEY: x}\n", "PLASPY_API_KEY"},
		{"a misspelt value", needed + "replicas: 3\n", "replicas"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := render(load(t), values(t, tt.values)); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// TestHelmSchemaIsWhole wants each value to be in the schema: one that is not
// is refused where somebody sets it.
func TestHelmSchemaIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(charts, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(load(t), values(t, string(text)+"\n")); err == nil || !strings.Contains(err.Error(), "plaspy.existingSecret") {
		t.Errorf("the defaults: %v, want only what has to be set", err)
	}
}
