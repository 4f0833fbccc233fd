package deploy

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "copy the rules and the dashboard into the chart")

// copies are files that the chart carries: a chart may not reach outside its
// folder, and a symbolic link would not survive every way of packing one.
var copies = map[string]string{
	"files/rules.yml":      "deploy/prometheus/rules.yml",
	"files/dashboard.json": "deploy/grafana/dashboards/plaspy-bridge.json",
}

func TestChartCarriesWhatThereIs(t *testing.T) {
	for name, from := range copies {
		want, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(filepath.Join(charts, name), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(filepath.Join(charts, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("the chart's %s differs from %s: go -C .ci/tools/deploy test -run Carries -update", name, from)
		}
	}
}

func TestHelmMonitoring(t *testing.T) {
	m := template(t, needed+`
nameOverride: tracking
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true, annotations: {grafana_folder: Fleet}}
`)
	endpoint := m.monitor.Spec.Endpoints[0]
	if len(endpoint.RelabelConfigs) != 1 || endpoint.RelabelConfigs[0].TargetLabel != "job" || *endpoint.RelabelConfigs[0].Replacement != "plaspy-bridge" {
		t.Errorf("scraped as %+v: the alert rules want the job plaspy-bridge", endpoint)
	}
	for label, value := range m.monitor.Spec.Selector.MatchLabels {
		if m.service.Labels[label] != value {
			t.Errorf("the monitor wants services with %s=%s, there is %v", label, value, m.service.Labels)
		}
	}
	if endpoint.Port != m.service.Spec.Ports[0].Name || endpoint.Path != "/metrics" {
		t.Errorf("scraped at %+v", endpoint)
	}
	if m.monitor.Labels["release"] != "prometheus" || m.rules.Labels["release"] != "prometheus" {
		t.Errorf("labels %v and %v: the operator looks for its own", m.monitor.Labels, m.rules.Labels)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/dashboards/plaspy-bridge.json"))
	if err != nil {
		t.Fatal(err)
	}
	if m.dashboard.Data["plaspy-bridge.json"] != string(text) || !json.Valid(text) {
		t.Error("the dashboard differs")
	}
	if m.dashboard.Labels["grafana_dashboard"] != "1" || m.dashboard.Annotations["grafana_folder"] != "Fleet" {
		t.Errorf("the sidecar looks for other labels than %v %v", m.dashboard.Labels, m.dashboard.Annotations)
	}
}

// TestHelmRules checks that the operator's rules are those that promtool tests.
func TestHelmRules(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	const page = "https://git.example.com/plaspy-bridge/deploy/docs/troubleshooting.md"
	for _, tt := range []struct{ name, values, key, value string }{
		{"as they are", "", "runbook", "deploy/docs/troubleshooting.md#alerts"},
		{"with a link", ", runbookURL: '" + page + "'", "runbook_url", page + "#alerts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := template(t, needed+"prometheusRule: {enabled: true"+tt.values+"}").rules.Spec
			if len(got.Groups) != 1 || len(got.Groups[0].Rules) < 15 || len(got.Groups[0].Rules) != len(want.Groups[0].Rules) {
				t.Fatalf("%+v", got.Groups)
			}
			for i, rule := range got.Groups[0].Rules {
				if rule.Annotations[tt.key] != tt.value {
					t.Errorf("%s: %s", rule.Alert, rule.Annotations)
				}
				if w := want.Groups[0].Rules[i]; rule.Alert != w.Alert || rule.Expr != w.Expr || rule.Annotations["description"] != w.Annotations["description"] {
					t.Errorf("rule %s differs from %s", rule.Alert, w.Alert)
				}
			}
		})
	}
}
