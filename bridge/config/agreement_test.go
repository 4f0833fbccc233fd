package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAgreement checks that each setting that must agree changes the digest of its
// own name only, and that the other settings change none.
func TestAgreement(t *testing.T) {
	base := Config{Devices: []string{"a", "b"}, Backfill: true, Inbound: true, RateLimit: 600, Username: "u", APIKey: "s3cret"}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"nothing", func(*Config) {}, nil},
		{"user name", func(c *Config) { c.Username = "v" }, []string{"account"}},
		{"devices", func(c *Config) { c.Devices = []string{"a"} }, []string{"devices"}},
		{"devices in another order", func(c *Config) { c.Devices = []string{"b", "a", "b"} }, nil},
		{"excluded", func(c *Config) { c.DevicesExclude = []string{"c"} }, []string{"devices"}},
		{"excluded instead of chosen", func(c *Config) { c.Devices, c.DevicesExclude = nil, []string{"a", "b"} }, []string{"devices"}},
		{"groups", func(c *Config) { c.Groups = []string{"a"} }, []string{"devices"}},
		{"limit", func(c *Config) { c.RateLimit = 60 }, []string{"rate limit"}},
		{"daily results", func(c *Config) { c.DailyResults = 60 }, []string{"daily results"}},
		{"daily usage", func(c *Config) { c.DailyUsage = 60 }, []string{"daily usage"}},
		{"ignored fields", func(c *Config) { c.IgnoreFields = []string{"rpm"} }, []string{"ignored fields"}},
		{"back-fill", func(c *Config) { c.Backfill = false }, []string{"back-fill"}},
		{"back-fill after", func(c *Config) { c.BackfillAfter = time.Second }, []string{"back-fill"}},
		{"alert history", func(c *Config) { c.AlertHistory = true }, []string{"alerts"}},
		{"silent after", func(c *Config) { c.SilentAfter = time.Second }, []string{"alerts"}},
		{"inbound forms", func(c *Config) { c.InboundForms = []string{"owntracks"} }, []string{"inbound forms"}},
		{"inbound age", func(c *Config) { c.InboundMaxAge = time.Second }, []string{"inbound age"}},
		{"no inbound", func(c *Config) { c.Inbound, c.InboundMaxAge = false, time.Second }, nil},
		{"what may differ", func(c *Config) {
			c.APIKey, c.Workers, c.PollInterval, c.ReplicaID, c.HTTPAddr = "other", 3, time.Second, "x", "y"
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := base
			tt.change(&cfg)
			mine, theirs := base.Agreement(), cfg.Agreement()
			var got []string
			for name, digest := range theirs {
				if mine[name] != digest {
					got = append(got, name)
				}
				if !strings.Contains(AgreementVariables(name), "_") {
					t.Errorf("%s names no variable", name)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAgreementVariables: the variables that are named are ones that there are.
func TestAgreementVariables(t *testing.T) {
	known := make(map[string]bool)
	for field := range reflect.TypeFor[Config]().Fields() {
		known[field.Tag.Get("envconfig")] = true
	}
	for _, a := range agreement {
		for _, v := range strings.FieldsFunc(strings.ReplaceAll(a.variables, " and ", ","), func(r rune) bool { return r == ',' || r == ' ' }) {
			if !known[v] {
				t.Errorf("%s: there is no %s", a.name, v)
			}
		}
	}
}
