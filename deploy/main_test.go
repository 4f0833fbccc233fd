package deploy_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"plaspy-bridge/bridge"
	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// scrape has the metrics of a running bridge, by name.
type scrape map[string]metric

// metric has the type of one metric, and every value that its labels had.
type metric struct {
	kind   string
	labels map[string][]string
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// scraped runs a bridge against a simulated API until it is ready, and reads its
// metrics.
func scraped(t *testing.T) scrape {
	t.Helper()
	s := sim.New(sim.Options{Devices: 3})
	l, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(collector.Close)
	for name, value := range map[string]string{
		"PLASPY_BASE_URL": l.URL, "PLASPY_USERNAME": "sim", "PLASPY_API_KEY": "sim-key", "NATS_URL": "", "BRIDGE_DATA_DIR": t.TempDir(),
		"BRIDGE_EMBEDDED_ADDR": "127.0.0.1:0", "BRIDGE_HTTP_ADDR": "127.0.0.1:0", "BRIDGE_POLL_INTERVAL": "200ms", "BRIDGE_SCHEDULE": "fixed",
		"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, // so that tracing's metrics are there
	} {
		t.Setenv(name, value)
	}
	cfg, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	b, err := bridge.New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	natstest.Run(t, func(ctx context.Context) {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	url := "http://" + b.HTTPAddr().String()
	var body string
	natstest.Eventually(t, "the bridge is ready and has polled", func() bool {
		body = get(t, url+"/metrics")
		return strings.Contains(body, "\nplaspy_bridge_ready 1\n") && !strings.Contains(body, `polls_total{result="changed"} 0`) &&
			strings.Contains(body, "\nplaspy_bridge_inbound_lanes{")
	})
	return parse(t, body)
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func parse(t *testing.T, exposition string) scrape {
	t.Helper()
	s := scrape{"up": {kind: "gauge"}, "ALERTS": {kind: "gauge"}} // which are Prometheus's own
	for line := range strings.Lines(exposition) {
		line = strings.TrimSuffix(line, "\n")
		if m := typeLine.FindStringSubmatch(line); m != nil {
			s[m[1]] = metric{m[2], map[string][]string{}}
			if m[2] == "histogram" {
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					s[m[1]+suffix] = metric{"histogram" + suffix, map[string][]string{}}
				}
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			values := s[m[1]].labels
			if values == nil {
				t.Fatalf("sample without a type: %s", line)
			}
			if !slices.Contains(values[pair[1]], pair[2]) {
				values[pair[1]] = append(values[pair[1]], pair[2])
			}
		}
	}
	if len(s) < 60 {
		t.Fatalf("only %d metrics scraped", len(s))
	}
	return s
}
