package rendezvous

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("host-%d 1", i))
	}
	return list
}

// TestSpread: every device has one owner, and each member about as many, also
// if names and ids differ in one digit only.
func TestSpread(t *testing.T) {
	const devices = 20_000
	for _, n := range []int{1, 2, 3, 7, 50} {
		all := names(n)
		var members []Views
		for _, name := range all {
			members = append(members, Views{New(all, name)})
		}
		counts := make([]int, n)
		for i := range devices {
			owners := 0
			for j, m := range members {
				if m.Own(fmt.Sprintf("device%d", i)) {
					counts[j]++
					owners++
				}
			}
			if owners != 1 {
				t.Fatalf("%d members: device%d has %d owners", n, i, owners)
			}
		}
		mean := devices / float64(n)
		for j, c := range counts {
			if off := math.Abs(float64(c) - mean); off > 5*math.Sqrt(mean) {
				t.Errorf("%d members: %s has %d devices, mean %.0f", n, all[j], c, mean)
			}
		}
	}
}

// TestViews: a device is owned under several Views if all of them give it.
func TestViews(t *testing.T) {
	two, three := New(names(2), "host-0 1"), New(names(3), "host-0 1")
	both := Views{two}.And(three)
	var lost int
	for i := range 1000 {
		token := fmt.Sprint(i)
		if both.Own(token) != (Views{two}.Own(token) && Views{three}.Own(token)) {
			t.Fatalf("%s: not what both give", token)
		}
		if (Views{two}).Own(token) && !both.Own(token) {
			lost++
		}
		if (Views{three}).Own(token) && !(Views{two}).Own(token) {
			t.Errorf("%s moved between two members when a third one joined", token)
		}
	}
	if lost < 100 || lost > 240 {
		t.Errorf("a third member takes %d of about 500", lost)
	}
	if got := len(both.And(two)); got != 2 {
		t.Errorf("the same members again gave %d", got)
	}
	if both.And(nil) != nil || Views(nil).And(two) != nil || New(names(3), "stranger") != nil {
		t.Error("nothing became something")
	}
}

// TestWithin: if Within says that no device was gained, none was, and it says so when
// replicas join, and while a division is replaced.
func TestWithin(t *testing.T) {
	all := names(5)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (vs Views) {
			for range rapid.IntRange(0, 2).Draw(t, label) {
				others := rapid.SliceOfNDistinct(rapid.SampledFrom(all[1:]), 0, 3, rapid.ID[string]).Draw(t, label)
				vs = append(vs, New(append(others, all[0]), all[0]))
			}
			return vs
		}
		before, now := draw("before"), draw("now")
		within := now.Within(before)
		for i := range 200 {
			if token := fmt.Sprint(i); within && now.Own(token) && !before.Own(token) {
				t.Fatalf("device %d was gained", i)
			}
		}
		next := New(all, all[0])
		if len(before) > 0 && (!before.And(next).Within(before) || !(Views{next}).Within(before)) {
			t.Fatal("a replica that joins seems to give devices")
		}
	})
	if two := (Views{New(names(2), all[0])}); two.Within(Views{New(names(3), all[0])}) || two.Within(nil) || !(Views)(nil).Within(two) {
		t.Error("devices of a replica that ended are not seen as gained, or none as gained")
	}
}

// BenchmarkMillion divides a million devices anew after a member has left, as each
// of the others does then.
func BenchmarkMillion(b *testing.B) {
	tokens := make([]string, 1_000_000)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("device=20%d", i)
	}
	for _, members := range []int{3, 20, 50} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			all := names(members)
			views := Views{New(all, all[0])}
			for b.Loop() {
				owned := 0
				for _, token := range tokens {
					if views.Own(token) {
						owned++
					}
				}
				if share := owned * members; share < 900_000 || share > 1_100_000 {
					b.Fatalf("%d of a million devices among %d", owned, members)
				}
			}
		})
	}
}
