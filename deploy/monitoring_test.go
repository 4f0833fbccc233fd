package deploy_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// selector is a metric in an expression, with its matchers.
var selector = regexp.MustCompile(`\b((?:plaspy_bridge|process|go)_[a-z0-9_]+|up|ALERTS)(\{[^}]*\})?`)

// matcher is one of them.
var matcher = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)

// given are the labels that Prometheus adds.
var given = []string{"job", "instance", "namespace", "alertname", "alertstate"}

// open are labels with an open set of values.
var open = []string{"code", "le"}

// check reports metrics, labels and values of an expression that a bridge does
// not have.
func (s scrape) check(expr string) (problems []string, used int) {
	for _, found := range selector.FindAllStringSubmatch(expr, -1) {
		used++
		name := found[1]
		m, ok := s[name]
		if !ok {
			problems = append(problems, "no metric "+name)
			continue
		}
		for _, want := range matcher.FindAllStringSubmatch(found[2], -1) {
			label, values := want[1], strings.Split(want[3], "|")
			switch known := m.labels[label]; {
			case slices.Contains(given, label):
			case known == nil:
				problems = append(problems, fmt.Sprintf("%s has no label %s", name, label))
			case slices.Contains(open, label):
			default:
				for _, v := range values {
					if !slices.ContainsFunc(known, regexp.MustCompile("^"+v+"$").MatchString) {
						problems = append(problems, fmt.Sprintf("%s{%s} is never %q but %v", name, label, v, known))
					}
				}
			}
		}
		// A counter by itself only grows, so expressions must use its rate.
		if (m.kind == "counter" || strings.HasPrefix(m.kind, "histogram")) && !strings.Contains(expr, "rate(") && !strings.Contains(expr, "increase(") {
			problems = append(problems, name+" is a "+m.kind+" and is used without a rate")
		}
	}
	return problems, used
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	s := scrape{
		"plaspy_bridge_polls_total": {"counter", map[string][]string{"result": {"changed", "error"}}},
		"plaspy_bridge_ready":       {"gauge", map[string][]string{}},
	}
	for expr, problems := range map[string]int{
		`sum(rate(plaspy_bridge_polls_total{result="error",job="x"}[5m]))`: 0,
		`rate(plaspy_bridge_polls_total{result=~"error|changed"}[5m])`:     0,
		`plaspy_bridge_ready == 0`:                                         0,
		`plaspy_bridge_reddy == 0`:                                         1,
		`rate(plaspy_bridge_polls_total{result="failed"}[5m])`:             1,
		`rate(plaspy_bridge_polls_total{kind="x"}[5m])`:                    1,
		`plaspy_bridge_polls_total > 1`:                                    1,
	} {
		if got, _ := s.check(expr); len(got) != problems {
			t.Errorf("%s: %v", expr, got)
		}
	}
}

// dashboard has the fields of a Grafana dashboard that the test reads.
type dashboard struct {
	UID        string
	Title      string
	Panels     []panel
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
}

type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ X, Y, W, H int }
	Targets []struct{ Expr, RefID string }
}

// TestMonitoringNamesWhatThereIs holds the dashboard and the alert rules against
// the metrics of a bridge at work.
func TestMonitoringNamesWhatThereIs(t *testing.T) {
	s := scraped(t)
	complain := func(where, expr string) int {
		problems, used := s.check(expr)
		for _, p := range problems {
			t.Errorf("%s: %s: %s", where, p, expr)
		}
		return used
	}
	t.Run("dashboard", func(t *testing.T) {
		var d dashboard
		if err := json.Unmarshal([]byte(text(t, "grafana/dashboards/plaspy-bridge.json")), &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %q shows nothing", p.Title)
			}
			for _, target := range p.Targets {
				if complain(p.Title, target.Expr) == 0 {
					t.Errorf("panel %q asks for no metric: %s", p.Title, target.Expr)
				}
			}
		}
		for _, v := range d.Templating.List {
			complain("variable "+v.Name, fmt.Sprint(v.Query))
		}
	})
	t.Run("rules", func(t *testing.T) {
		used := 0
		for line := range strings.Lines(text(t, "prometheus/rules.yml")) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.Contains(line, "description:") {
				// The rates of an expression over several lines count for each line.
				used += complain("rules.yml", line)
			}
		}
		if used < 20 {
			t.Errorf("%d metrics found in the rules", used)
		}
	})
	t.Run("tests of the rules", func(t *testing.T) {
		for line := range strings.Lines(text(t, "prometheus/rules_test.yml")) {
			if series, ok := strings.CutPrefix(strings.TrimSpace(line), "- series: "); ok && !strings.Contains(series, "'other{") {
				complain("rules_test.yml", "rate("+series+")")
			}
		}
	})
}

func TestDashboardIsWellFormed(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(text(t, "grafana/dashboards/plaspy-bridge.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || len(d.Panels) < 10 {
		t.Errorf("uid %q, title %q, %d panels", d.UID, d.Title, len(d.Panels))
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the id %d of another panel", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("panel %q lies outside the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] {
				t.Errorf("panel %q has two targets %s", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
	}
}

// TestEachAlertIsTested checks that each alert has a case in which it fires and one in
// which it does not; promtool runs them.
func TestEachAlertIsTested(t *testing.T) {
	tests := text(t, "prometheus/rules_test.yml")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(text(t, "prometheus/rules.yml"), -1)
	if len(alerts) < 15 {
		t.Fatalf("%d alerts found", len(alerts))
	}
	for _, a := range alerts {
		fires := strings.Count(tests, `'ALERTS{alertname="`+a[1]+`"`)
		cases := strings.Count(tests, "- name: '"+a[1]+": ")
		if fires == 0 || cases == fires {
			t.Errorf("%s: fires in %d of %d cases", a[1], fires, cases)
		}
	}
}

// TestAlertsHaveARunbook checks that each alert links to the page's table of alerts, that
// this table has one row for each alert and no others, and that the table of failures
// explains each log line that an alert names.
func TestAlertsHaveARunbook(t *testing.T) {
	const heading = "Alerts"
	page := text(t, "docs/troubleshooting.md")
	failures, table, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("the page has no heading %q", heading)
	}
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| (PlaspyBridge\w+) \| [^|]+ \| [^|]+ \|$`).FindAllStringSubmatch(table, -1) {
		rows[row[1]]++
	}
	alerts := strings.Split(text(t, "prometheus/rules.yml"), "- alert: ")[1:]
	logs := 0
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		if rows[name] != 1 {
			t.Errorf("%s: %d rows in the table of alerts, want 1", name, rows[name])
		}
		delete(rows, name)
		runbook := regexp.MustCompile(`\n +runbook: deploy/docs/troubleshooting\.md#(\S+)\n`).FindStringSubmatch(alert)
		if runbook == nil || runbook[1] != anchor(heading) {
			t.Errorf("%s: runbook %v, want the anchor %s", name, runbook, anchor(heading))
		}
		if log := regexp.MustCompile(`\n +log: '(.+)'\n`).FindStringSubmatch(alert); log != nil {
			logs++
			if !regexp.MustCompile("(?m)^\\|[^|]+\\|[^|]*`" + regexp.QuoteMeta(log[1]) + "`[^|]*\\|").MatchString(failures) {
				t.Errorf("%s: the table of failures has no log line %q", name, log[1])
			}
		}
	}
	for name := range rows {
		t.Errorf("the table of alerts has a row for %s, which is no alert", name)
	}
	if len(alerts) < 15 || logs < 8 {
		t.Errorf("%d alerts with %d log lines found", len(alerts), logs)
	}
}

// anchor is the link target of a heading.
func anchor(heading string) string {
	kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(kept, " ", "-")
}
