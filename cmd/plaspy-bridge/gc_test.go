package main

import "testing"

func TestGCPercent(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		name       string
		live, rate float64
		want       int
	}{
		{"nothing collected yet", 0, 0, 100},
		{"1,000 devices, idle", 7 * mb, 0.1 * mb, 85},
		{"1,000 devices, flat out", 7 * mb, 150 * mb, 400},
		{"10,000 devices, one poll a minute", 25 * mb, 1 * mb, 40},
		{"100,000 devices, one poll a minute", 200 * mb, 8 * mb, 40},
		{"100,000 devices, flat out", 200 * mb, 100 * mb, 50},
		{"100,000 devices, reading their state", 100 * mb, 200 * mb, 200},
		{"10,000 devices, half of it", 50 * mb, 50 * mb, 160},
		{"10,000 devices, 1,000 polls a second", 25 * mb, 12 * mb, 150},
		{"a heap of its own dimension", 4000 * mb, 1000 * mb, 40},
		{"next to nothing alive", mb, 0, 600},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := gcPercent(tc.live, tc.rate); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestExcess(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		name       string
		live, free uint64
		rate       float64
		want       bool
	}{
		{"1,000 devices", 7 * mb, 40 * mb, mb, false},
		{"100,000 devices while their state is read", 150 * mb, 300 * mb, 200 * mb, false},
		{"100,000 devices after their start", 200 * mb, 300 * mb, 16 * mb, true},
		{"100,000 devices later", 200 * mb, 80 * mb, 16 * mb, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := excess(tc.live, tc.free, tc.rate); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// TestProcessors: one thread needs ten quiet seconds, a busy second ends it, and a
// rate between the two bounds changes nothing.
func TestProcessors(t *testing.T) {
	const idle, between, busy = quietRate / 3, quietRate + 1, busyRate
	var p processors
	step := func(n int, rate float64, want bool) {
		t.Helper()
		for i := range n {
			was := p.one
			if one, changed := p.next(rate); one != want || changed != (was != one) {
				t.Fatalf("second %d at %.0f bytes a second: got %v, changed %v", i, rate, one, changed)
			}
		}
	}
	step(quietFor-1, idle, false)
	step(1, between, false)
	step(quietFor-1, idle, false)
	step(2*quietFor, idle, true)
	step(quietFor, between, true)
	step(1, busy, false)
	step(1, between, false)
	step(quietFor-1, idle, false)
	step(1, idle, true)
}
