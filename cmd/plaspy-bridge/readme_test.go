package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/cmd/plaspy-bridge/internal/clitest"
)

// go test ./cmd/plaspy-bridge -run README -update writes the tables of the README and of deploy/docs.
var update = flag.Bool("update", false, "write what the README should have instead of comparing")

const (
	readme          = "../../README.md"
	settingsPage    = "../../deploy/docs/settings.md"
	metricsPage     = "../../deploy/docs/metrics.md"
	troubleshooting = "../../deploy/docs/troubleshooting.md"
)

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section compares the text between a pair of markers of a page with want, or
// writes it there.
func section(t *testing.T, page, name, want string) {
	t.Helper()
	text := readPage(t, page)
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, found := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no section between %q and %q", page, begin, end)
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s of %s are out of date; go test ./cmd/plaspy-bridge -run README -update writes them\ngot:\n%s\nwant:\n%s", name, page, got, want)
	}
	if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestREADMESettings(t *testing.T) {
	var b bytes.Buffer
	if err := config.WriteSettings(&b); err != nil {
		t.Fatal(err)
	}
	section(t, settingsPage, "settings", b.String())
}

func TestREADMECommands(t *testing.T) {
	var b strings.Builder
	b.WriteString("| command | what it does |\n|---|---|\n")
	row := func(use, short string) {
		fmt.Fprintf(&b, "| `plaspy-bridge %s` | %s |\n", strings.ReplaceAll(use, "|", `\|`), short)
	}
	for _, c := range commands() {
		row(c.Use, c.Short)
		for _, sub := range c.Commands() {
			row(c.Name()+" "+sub.Use, sub.Short)
		}
	}
	section(t, readme, "commands", b.String())
}

// TestREADMEMetrics compares the table with the metrics of a running bridge, and
// those with the names in the source.
func TestREADMEMetrics(t *testing.T) {
	named := metricNames(t)
	var table string
	deadline := time.Now().Add(time.Minute)
	// Some show only once something has happened.
	for scrape := range running(t) {
		table = metricsTable(scrape)
		missing := slices.DeleteFunc(slices.Clone(named), func(name string) bool { return strings.Contains(table, "`"+name+"`") })
		if len(missing) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("named in the source, but not served by a running bridge: %v", missing)
			break
		}
	}
	section(t, metricsPage, "metrics", table)
}

// Names, units and help of the metrics follow the rules of Prometheus.
func TestMetricsLint(t *testing.T) {
	for metrics := range running(t) {
		problems, err := promlint.New(strings.NewReader(metrics)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "plaspy_") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
		break
	}
}

// lively makes a fleet with short trips and rests, so that every metric shows soon.
func lively(r *rand.Rand) fleet.Cadence {
	return fleet.Cadence{
		Moving: time.Duration(2+r.IntN(5)) * time.Second, Parked: 20 * time.Second,
		Restless: r.IntN(5) > 0, Ignition: true, Announces: true,
	}
}

// running runs a bridge for as long as its metrics are asked for.
func running(t *testing.T) func(func(string) bool) {
	return func(yield func(string) bool) {
		simulatedHere(t, sim.New(sim.Options{Devices: 5, Seed: 1, Profile: lively}), "PLASPY_RATE_LIMIT", "0", "BRIDGE_POLL_INTERVAL", "100ms")
		cfg, _, err := config.Load()
		if err != nil {
			t.Fatal(err)
		}
		b, err := bridge.New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		b.Metrics().MustRegister(ops.NewLogQueue(io.Discard).Collector(), ops.BuildInfo("test", "test"))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics, err := clitest.Fetch(t.Context(), "http://"+b.HTTPAddr().String()+"/metrics")
			if err != nil {
				t.Fatal(err)
			}
			if !yield(metrics) {
				return
			}
			<-tick.C
		}
	}
}

var (
	metricHelp = regexp.MustCompile(`(?m)^# HELP (plaspy_bridge_\w+) (.*)\n# TYPE \w+ (\w+)\n(.*)`)
	metricName = regexp.MustCompile(`"(plaspy_bridge_\w+)"`)
	labelName  = regexp.MustCompile(`(\w+)="`)
)

// metricsTable makes the README's table of the metrics that Prometheus would read.
func metricsTable(scrape string) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what |\n|---|---|---|---|\n")
	for _, m := range metricHelp.FindAllStringSubmatch(scrape, -1) {
		var labels []string
		for _, l := range labelName.FindAllStringSubmatch(m[4], -1) {
			if l[1] != "le" {
				labels = append(labels, "`"+l[1]+"`")
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m[1], m[3], strings.Join(labels, ", "), strings.TrimSuffix(m[2], "."))
	}
	return b.String()
}

// metricNames are those in the source of the program.
func metricNames(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, text := range goSources(t) {
		for _, m := range metricName.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// goSources are the Go files of the module's own packages that the program is
// made of, by name.
func goSources(t *testing.T) map[string]string {
	t.Helper()
	const format = `{{if .Module}}{{if .Module.Main}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`
	list, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for name := range strings.FieldsSeq(string(list)) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	if len(texts) < 10 {
		t.Fatalf("only %d source files", len(texts))
	}
	return texts
}

// TestREADMELogLines checks that the program writes every log line of the tables of failures
// and alerts, so that a search for the line finds the page.
func TestREADMELogLines(t *testing.T) {
	sources := goSources(t)
	rows := regexp.MustCompile(`(?m)^\|[^|]+\| (.*) \|[^|]+\|$`).FindAllStringSubmatch(readPage(t, troubleshooting), -1)
	found := 0
	for _, row := range rows {
		for _, line := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			if command, _, phrase := strings.Cut(line[1], " "); !phrase || command == "plaspy-bridge" || command == "curl" {
				continue // a metric, a setting or a command
			}
			found++
			logged := false
			for _, text := range sources {
				for _, level := range []string{"Info", "Warn", "Error"} {
					logged = logged || strings.Contains(text, level+`("`+line[1]+`"`) || strings.Contains(text, level+`, "`+line[1]+`"`) ||
						strings.Contains(text, `log, "`+line[1]+`"`)
				}
			}
			if !logged {
				t.Errorf("nothing logs %q", line[1])
			}
		}
	}
	if found < 70 {
		t.Errorf("only %d log lines found in the tables", found)
	}
}

// TestREADMEPlaces checks that the folders of the package map and the targets of
// links exist.
func TestREADMEPlaces(t *testing.T) {
	text := readPage(t, readme)
	_, table, _ := strings.Cut(text, "\n## Where things are\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var places []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		places = append(places, m[1])
	}
	if len(places) < 10 {
		t.Errorf("only %d folders found in the table", len(places))
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(text, -1) {
		places = append(places, m[1])
	}
	packages, err := filepath.Glob("../../bridge/*/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		if name := "bridge/" + filepath.Base(filepath.Dir(p)); !slices.Contains(places, name) {
			t.Errorf("README has no row for %s", name)
		}
	}
	for _, place := range places {
		if _, err := os.Stat(filepath.Join("../..", place)); err != nil {
			t.Errorf("README mentions %v", err)
		}
	}
}
