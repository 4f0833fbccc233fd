package inspect

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"plaspy-bridge/bridge/ops"
)

// TestStatusOfTheBudget: a budget without a limit is shown in words.
func TestStatusOfTheBudget(t *testing.T) {
	for want, perMinute := range map[string]float64{
		"budget    no limit, 3 throttled answers":                   math.Inf(1),
		"budget    300 requests a minute here, 3 throttled answers": 300,
	} {
		var out bytes.Buffer
		s := series{"api_budget_requests_per_minute": perMinute, "api_throttled_total": 3}
		if err := writeStatus(&out, "127.0.0.1:8080", ops.Readiness{Ready: true}, s); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}
