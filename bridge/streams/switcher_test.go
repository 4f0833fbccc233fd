package streams

import (
	"testing"
	"time"
)

// TestSwitcher moves a connection that cannot store anything, less and less often.
func TestSwitcher(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	well, alone, moves := true, false, 0
	h := &switcher{well: func() bool { return well }, move: func() bool { moves++; return !alone }}
	// during returns when the connection is moved, in seconds of a time.
	during := func(seconds int) (at []int) {
		for s := range seconds {
			if elapsed, moved := h.look(now); moved {
				at = append(at, s)
				if elapsed < switchAfter {
					t.Errorf("moved after %v", elapsed)
				}
			}
			now = now.Add(time.Second)
		}
		return at
	}
	equal := func(scene string, got []int, want ...int) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: moved at %v, want %v", scene, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: moved at %v, want %v", scene, got, want)
			}
		}
	}
	equal("all is well", during(100))
	well = false
	equal("a short trouble", during(10))
	well = true
	equal("all is well again", during(1))
	well = false
	equal("a long trouble", during(500), 10, 30, 70, 150, 270, 390)
	well = true
	during(1)
	well = false
	equal("the next trouble", during(20), 10)
	h.lost()
	equal("after a connection was lost", during(21), 20)
	well = true
	during(1)
	well, alone, moves = false, true, 0
	equal("the only server", during(60))
	if moves == 0 {
		t.Error("it was not tried")
	}
}
