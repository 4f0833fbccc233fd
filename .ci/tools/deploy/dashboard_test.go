package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// TestDashboardQueriesParse reads each panel's query as Prometheus does. That
// its metrics exist is tested beside the dashboard, against a bridge at work.
func TestDashboardQueriesParse(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/dashboards/plaspy-bridge.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	// As Grafana does before it asks.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$__range", "3h", "$job", "plaspy-bridge", "$instance", ".*")
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries++
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(variables.Replace(target.Expr)); err != nil {
				t.Errorf("%s: %v: %s", p.Title, err, target.Expr)
			}
		}
	}
	if queries < 30 {
		t.Errorf("%d queries found", queries)
	}
}
