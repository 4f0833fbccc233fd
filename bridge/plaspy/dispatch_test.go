package plaspy

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A process that was stopped, or starved, finds its timer long overdue and all requests waiting. The missed
// turns are lost but for a few: more would be a burst.
func TestOverdueTimerMakesNoBurst(t *testing.T) {
	for _, tc := range []struct {
		name string
		late time.Duration
		want int // slots given out at once, at one each 102 ms
	}{
		{"on time", 0, 1},
		{"late by half a slot", 50 * time.Millisecond, 1},
		{"late by two slots", 210 * time.Millisecond, 3},
		{"stopped for an hour", time.Hour, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(600, slog.New(slog.DiscardHandler), nil)
				for range 100 {
					go func() { _, _ = b.Wait(t.Context(), Poll) }()
				}
				synctest.Wait()
				b.mu.Lock()
				defer b.mu.Unlock()
				waiting := b.queues.waiters[Poll].Len()
				b.slot = time.Now().Add(-b.spacingLocked(time.Now()) - tc.late)
				b.grantDueLocked(time.Now())
				if got := waiting - b.queues.waiters[Poll].Len(); got != tc.want {
					t.Errorf("got %d slots at once, want %d", got, tc.want)
				}
			})
		})
	}
}
