package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/strvals"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../../.."
	charts = root + "/deploy/helm/plaspy-bridge"
)

// converter knows which lists may not name a thing twice.
var converter = applyconfigurations.NewTypeConverter(scheme.Scheme)

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

// manifests are the objects of one release.
type manifests struct {
	deployment *appsv1.Deployment
	service    *corev1.Service
	account    *corev1.ServiceAccount
	dashboard  *corev1.ConfigMap
	budget     *policyv1.PodDisruptionBudget
	policy     *networkingv1.NetworkPolicy
	monitor    *monitoringv1.ServiceMonitor
	rules      *monitoringv1.PrometheusRule
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

// into returns the value that a manifest of this kind is decoded into.
func (m *manifests) into(kind string) any {
	switch kind {
	case "apps/v1 Deployment":
		return &m.deployment
	case "v1 Service":
		return &m.service
	case "v1 ServiceAccount":
		return &m.account
	case "v1 ConfigMap":
		return &m.dashboard
	case "policy/v1 PodDisruptionBudget":
		return &m.budget
	case "networking.k8s.io/v1 NetworkPolicy":
		return &m.policy
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return &m.monitor
	case "monitoring.coreos.com/v1 PrometheusRule":
		return &m.rules
	}
	return nil
}

// template renders the chart and reads each manifest into the type that
// Kubernetes, or the Prometheus operator, has for it. A field that it does not
// have is an error, and so is an object that a server-side apply would refuse, such
// as one with the same variable or port twice.
func template(t *testing.T, text string) manifests {
	t.Helper()
	files, err := render(load(t), values(t, text))
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for name, body := range files {
		if strings.Contains(body, "<no value>") || strings.Contains(body, "<nil>") {
			t.Errorf("%s has an empty text:\n%s", name, body)
		}
		if strings.TrimSpace(body) == "" || strings.HasSuffix(name, ".txt") {
			continue
		}
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(body), &kind); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, body)
		}
		into := m.into(kind.APIVersion + " " + kind.Kind)
		if into == nil {
			t.Fatalf("%s is a %v", name, kind)
		}
		if err := yaml.UnmarshalStrict([]byte(body), into); err != nil {
			t.Errorf("%s: %v\n%s", name, err, body)
		}
	}
	objects := []runtime.Object{m.deployment, m.service}
	if m.policy != nil {
		objects = append(objects, m.policy)
	}
	for _, o := range objects {
		if _, err := converter.ObjectToTyped(o); err != nil {
			t.Errorf("%T: %v", o, err)
		}
	}
	return m
}

// environment is the environment of the bridge's container: a value, or the secret and
// its key that it comes from.
func (m manifests) environment() map[string]string {
	env := map[string]string{}
	for _, v := range m.deployment.Spec.Template.Spec.Containers[0].Env {
		env[v.Name] = v.Value
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			env[v.Name] = v.ValueFrom.SecretKeyRef.Name + "/" + v.ValueFrom.SecretKeyRef.Key
		}
	}
	return env
}

func TestHelmDefaults(t *testing.T) {
	m := template(t, needed)
	if m.deployment == nil || m.service == nil || m.account == nil || m.budget == nil || m.policy == nil {
		t.Fatalf("rendered %+v", m)
	}
	if m.monitor != nil || m.rules != nil || m.dashboard != nil {
		t.Error("objects for an operator or a sidecar are rendered by default")
	}
	pod := m.deployment.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	if *m.deployment.Spec.Replicas != 2 {
		t.Errorf("%d replicas", *m.deployment.Spec.Replicas)
	}
	for _, tt := range []struct {
		path  string
		probe *corev1.Probe
	}{{"/livez", c.LivenessProbe}, {"/readyz", c.ReadinessProbe}, {"/livez", c.StartupProbe}} {
		if p := tt.probe; p == nil || p.HTTPGet == nil || p.HTTPGet.Path != tt.path || p.HTTPGet.Port.String() != "http" {
			t.Errorf("probe of %s: %v", tt.path, p)
		}
	}
	if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources %v", c.Resources)
	}
	restricted(t, &pod)
	if spread := pod.TopologySpreadConstraints; len(spread) != 1 || spread[0].TopologyKey != "kubernetes.io/hostname" {
		t.Errorf("spread %v", spread)
	}
	m.selectors(t)
}

// selectors checks that everything which selects pods selects the bridge's.
func (m manifests) selectors(t *testing.T) {
	t.Helper()
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
		t.Error("the pod has more access to its host or the API server than it needs")
	}
	for _, v := range pod.Volumes {
		if v.Secret == nil {
			t.Errorf("volume %s is no secret", v.Name)
		}
	}
}

func TestHelmRefuses(t *testing.T) {
	for _, tt := range []struct{ name, values, says string }{
		{"no secret", "nats: {url: x}", "plaspy.existingSecret"},
		{"replicas without NATS", "plaspy: {existingSecret: x}\nreplicaCount: 3", "nats.url"},
		{"credentials of no secret", needed[:len(needed)-2] + ", credsKey: c}\n", "nats.existingSecret"},
		{"certificates of no secret", needed[:len(needed)-2] + ", caKey: c}\n", "nats.tlsSecret"},
		{"a password in the URL", "plaspy: {existingSecret: x}\nnats: {url: 'nats://a:b@c'}", "nats.existingSecret"},
		{"a key as a setting", needed + "settings: {PLASPY_API_KEY: x}\n", "PLASPY_API_KEY"},
		{"collector's headers as a setting", needed + "settings: {OTEL_EXPORTER_OTLP_HEADERS: x}\n", "OTEL_EXPORTER_OTLP_HEADERS"},
		{"a key as another variable", needed + "extraEnv: [{name: NATS_PASSWORD, value: x}]\n", "extraEnv"},
		{"killed too early", needed + "settings: {BRIDGE_SHUTDOWN_TIMEOUT: 1m30s}\nterminationGracePeriodSeconds: 60\n", "before BRIDGE_SHUTDOWN_TIMEOUT, 90 s"},
		{"a timeout that is none", needed + "settings: {BRIDGE_SHUTDOWN_TIMEOUT: 20}\n", "missing unit in duration"},
		{"a sampler that there is not", needed + "otel: {sampler: half}\n", "sampler"},
		{"a collector without a scheme", needed + "otel: {endpoint: 'collector:4318'}\n", "endpoint"},
		{"a misspelt value", needed + "replicas: 3\n", "replicas"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := render(load(t), values(t, tt.values)); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// TestHelmReadme installs with the command that deploy/README.md shows.
func TestHelmReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]any{}
	flags := regexp.MustCompile(`--set (\S+)`).FindAllSubmatch(text, -1)
	for _, flag := range flags {
		if err := strvals.ParseInto(string(flag[1]), set); err != nil {
			t.Fatal(err)
		}
	}
	files, err := render(load(t), set)
	if err != nil || len(flags) < 5 {
		t.Fatalf("with %v: %v", set, err)
	}
	for _, want := range []string{`image: "registry.example.com/plaspy-bridge:`, "secretName: plaspy\n", "name: NATS_PASSWORD\n"} {
		if !strings.Contains(files["plaspy-bridge/templates/deployment.yaml"], want) {
			t.Errorf("the deployment lacks %s", want)
		}
	}
}

// TestHelmSchemaIsWhole checks that each value is in the schema: any other
// value is refused if it is set.
func TestHelmSchemaIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(charts, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(load(t), values(t, string(text)+"\n")); err == nil || !strings.Contains(err.Error(), "plaspy.existingSecret") {
		t.Errorf("the defaults: %v, want only what has to be set", err)
	}
}
