package bridge

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/ops"
)

func TestStateLog(t *testing.T) {
	var out bytes.Buffer
	l := &stateLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	start := time.Now()
	at := func(s ops.State, since time.Duration) map[string]ops.PartStatus {
		return map[string]ops.PartStatus{"nats": {State: s, Since: start.Add(since)}, "lifecycle": {State: ops.Down("stopping"), Since: start}}
	}
	refused := ops.Down("connection refused")
	for _, step := range []struct {
		name  string
		at    time.Duration
		parts map[string]ops.PartStatus
		want  string // the line; empty: none
	}{
		{"a moment of the start", time.Second, at(refused, 0), ""},
		{"lasts", 3 * time.Second, at(refused, 0), `msg="part is not ready" part=nats reason="connection refused"`},
		{"goes on", 10 * time.Second, at(refused, 0), ""},
		{"another reason, soon", 20 * time.Second, at(ops.Down("timeout"), 0), ""},
		{"another reason, later", 64 * time.Second, at(ops.Down("timeout"), 0), `reason=timeout`},
		{"another state", 70 * time.Second, at(ops.Degraded("a permission is missing"), 66*time.Second), `msg="part is degraded" part=nats`},
		{"well", 80 * time.Second, at(ops.Up(), 80*time.Second), `msg="part is healthy again" part=nats elapsed=1m20s`},
		{"still well", 90 * time.Second, at(ops.Up(), 80*time.Second), ""},
	} {
		out.Reset()
		l.look(start.Add(step.at), step.parts)
		if got := out.String(); step.want == "" && got != "" || !strings.Contains(got, step.want) || strings.Count(got, "\n") > 1 {
			t.Errorf("%s: logged %q, want %q", step.name, got, step.want)
		}
	}
}
