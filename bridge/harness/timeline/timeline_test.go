package timeline_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"plaspy-bridge/bridge/harness/timeline"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func second(n int) time.Time { return noon.Add(time.Duration(n) * time.Second) }

// TestUncovered compares the sum with a count of the single seconds that no span covers.
func TestUncovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lists [2][]timeline.Span
		var ends [][2]int // of each span, the last of these has no end
		for i := range rapid.IntRange(0, 6).Draw(t, "spans") {
			from := rapid.IntRange(-5, 25).Draw(t, "from")
			to := from + rapid.IntRange(0, 10).Draw(t, "length")
			s := timeline.Span{From: second(from), To: second(to)}
			if rapid.IntRange(0, 5).Draw(t, "open") == 0 {
				s.To, to = time.Time{}, 100
			}
			lists[i%2] = append(lists[i%2], s)
			ends = append(ends, [2]int{from, to})
		}
		from := rapid.IntRange(0, 20).Draw(t, "window")
		to := from + rapid.IntRange(0, 10).Draw(t, "window's length")
		want := 0
		for n := from; n < to; n++ {
			covered := false
			for _, e := range ends {
				covered = covered || e[0] <= n && n < e[1]
			}
			if !covered {
				want++
			}
		}
		if got := timeline.Uncovered(second(from), second(to), lists[0], lists[1]); got != time.Duration(want)*time.Second {
			t.Fatalf("got %v from %d to %d with %v, want %ds", got, from, to, ends, want)
		}
	})
}

// TestCovers checks that a span covers both of its ends.
func TestCovers(t *testing.T) {
	for _, test := range []struct {
		name string
		span timeline.Span
		at   int
		want bool
	}{
		{"before", timeline.Span{From: second(2), To: second(4)}, 1, false},
		{"at the start", timeline.Span{From: second(2), To: second(4)}, 2, true},
		{"at the end", timeline.Span{From: second(2), To: second(4)}, 4, true},
		{"after", timeline.Span{From: second(2), To: second(4)}, 5, false},
		{"without an end", timeline.Span{From: second(2)}, 500, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.span.Covers(second(test.at)); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
			if got := timeline.Covered([]timeline.Span{test.span}, second(test.at)); got != test.want {
				t.Errorf("in a list: got %t, want %t", got, test.want)
			}
		})
	}
}
