package logging

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/config"
)

func TestNewLogger(t *testing.T) {
	tests := []struct {
		name   string
		config config.Config
		want   string // a pattern for all that is logged
	}{
		{"auto, no terminal", config.Config{LogFormat: config.LogAuto}, `^\{"time":"[^"]+","level":"INFO","msg":"token refreshed","elapsed":"1.5s","api_key":"\[redacted\]"\}\n$`},
		{"text, no terminal, no colour", config.Config{LogFormat: config.LogText}, `^[0-9:.]+ INF token refreshed elapsed=1.5s api_key=\[redacted\]\n$`},
		{"level", config.Config{LogFormat: config.LogJSON, LogLevel: slog.LevelWarn}, `^$`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			log := newLogger(tt.config, tt.config.LogLevel, &out, false)
			log.Info("token refreshed", "elapsed", 1500*time.Millisecond, "api_key", config.Secret("s3cret"))
			if !regexp.MustCompile(tt.want).MatchString(out.String()) {
				t.Errorf("logged %q, want %s", out.String(), tt.want)
			}
		})
	}
}

func TestWarn(t *testing.T) {
	var out bytes.Buffer
	Warn(newLogger(config.Config{LogFormat: config.LogText}, slog.LevelInfo, &out, false), []config.Warning{{Variable: "BRIDGE_X", Problem: "is odd"}})
	if !strings.Contains(out.String(), `WRN setting looks wrong variable=BRIDGE_X problem="is odd"`) {
		t.Errorf("logged %s", &out)
	}
}
