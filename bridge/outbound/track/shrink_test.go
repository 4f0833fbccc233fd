package track

import "testing"

// shrink is a debugging aid.
func TestShrink(t *testing.T) {
	for _, r := range allRules {
		best := []int(nil)
		var broken string
		seed := uint64(7777777)
		for n := range 150000 {
			h := randHistory(seed+uint64(n), 4+n%40)
			if b := run(r, h); b != "" {
				best, broken = h, b
				break
			}
		}
		if best == nil {
			continue
		}
		for changed := true; changed; {
			changed = false
			for i := range best {
				c := append(append([]int(nil), best[:i]...), best[i+1:]...)
				if b := run(r, c); b != "" {
					best, broken, changed = c, b, true
					break
				}
			}
		}

		for _, e := range debugRun(r, best) {
			t.Logf("%d %s %s %s %s fix %v back %v ann %q", e.seq, e.subject, e.alert, e.state, e.source, e.fixTime.Format("15:04:05"), e.backfill, e.stored.Announced+e.stored.Since)
		}
		t.Errorf("%+v: %s\n   after %s", r, broken, names(best))
	}
}

func randHistory(seed uint64, n int) []int {
	x := seed*0x9E3779B97F4A7C15 + 1
	h := make([]int, n)
	for i := range h {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		h[i] = int(x % uint64(len(ops)))
	}
	return h
}

func debugRun(r rules, history []int) []event {
	w := newWorld(r)
	for _, i := range history {
		w.now = w.now.Add(1e9)
		ops[i].do(w)
	}
	w.settle()
	return w.log
}
