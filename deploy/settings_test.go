package deploy_test

import (
	"encoding/json"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"plaspy-bridge/bridge/config"
)

// variable matches the name of a setting of the bridge.
var variable = regexp.MustCompile(`\b(?:PLASPY|NATS|BRIDGE|OTEL)_[A-Z][A-Z_]*[A-Z]\b`)

// foreign are names that look like settings: streams, and those of nats.conf, of the
// compose file and of the nats CLI.
var foreign = []string{"PLASPY_EVENTS", "PLASPY_INBOUND", "PLASPY_RESULTS", "PLASPY_DLQ", "BRIDGE_PASSWORD", "NATS_BIND", "NATS_TIMEOUT"}

// TestSettingsExist fails on a setting that the bridge does not know, in
// anything that sets one.
func TestSettingsExist(t *testing.T) {
	known := slices.Clone(foreign)
	for _, s := range (config.Config{}).Settings(nil) {
		known = append(known, s.Name)
	}
	seen := 0
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if entry.IsDir() || strings.HasSuffix(name, ".json") {
			return nil
		}
		for _, v := range variable.FindAllString(text(t, name), -1) {
			seen++
			if !slices.Contains(known, v) {
				t.Errorf("%s names the unknown setting %s", name, v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("%d settings found", seen)
	}
}

// TestChartTakesNoSecretAsText checks that the chart refuses each secret among its
// settings, because every reader of the deployment could see it there.
func TestChartTakesNoSecretAsText(t *testing.T) {
	var schema struct {
		Properties struct {
			Settings struct {
				PropertyNames struct {
					Pattern string
					Not     struct{ Enum []string }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text(t, "helm/plaspy-bridge/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	names := schema.Properties.Settings.PropertyNames
	allowed := regexp.MustCompile(names.Pattern)
	secrets := 0
	for _, v := range config.Variables() {
		if !v.Secret {
			continue
		}
		secrets++
		if allowed.MatchString(v.Name) && !slices.Contains(names.Not.Enum, v.Name) {
			t.Errorf("settings accepts %s", v.Name)
		}
	}
	if secrets < 5 {
		t.Errorf("%d secrets found", secrets)
	}
}
