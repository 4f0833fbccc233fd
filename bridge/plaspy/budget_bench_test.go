package plaspy_test

import (
	"net/http"
	"testing"

	"plaspy-bridge/bridge/plaspy"
)

func BenchmarkBudgetUnlimited(b *testing.B) {
	budget := newBudget(0)
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://x", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := budget.Admit(req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBudgetLimited measures the bookkeeping of a slot, at a limit that never makes anyone wait long.
func BenchmarkBudgetLimited(b *testing.B) {
	budget := newBudget(1_000_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := budget.Wait(b.Context(), plaspy.Poll); err != nil {
			b.Fatal(err)
		}
	}
}
