package lane

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	long  = flag.Duration("long", 0, "how long TestLong makes random histories")
	depth = flag.Int("depth", 5, "steps of TestExhaustive")
)

// small are limits that a short history reaches: of the number of messages in
// memory if hand is even, and of their size if it is odd.
func small(workers, hand int) Limits {
	limits := Limits{
		Workers: workers, Messages: hand, Bytes: 1000 * hand, MaxAge: 10 * time.Minute, Initial: time.Second, Max: time.Minute,
		Patience: 2 * time.Second, Pause: time.Second, Recent: 64,
	}
	if hand%2 == 1 {
		limits.Messages, limits.Bytes = 100*hand, 10*hand
	}
	return limits
}

// random makes one random history.
func random(choose chooser, steps int) (*world, error) {
	names := []string{Odd, "a", "b", "c", "d", "e"}
	lanes := names[:1+choose(len(names), "lanes")]
	w := newWorld(choose, small(1+choose(4, "workers"), 1+choose(12, "hand")), lanes, 40)
	w.random = true
	for _, name := range lanes {
		if name != "a" && name != Odd && choose(3, "bad") == 0 {
			w.bad[name] = true
		}
	}
	for range choose(20, "backlog") {
		w.publish(lanes[choose(len(lanes), "lane")])
	}
	return w, w.run(steps)
}

// TestModel compares random histories with the model; a failure is made as short
// as possible.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choose := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, what) }
		if _, err := random(choose, rapid.IntRange(0, 120).Draw(t, "steps")); err != nil {
			t.Fatal(err)
		}
	})
}

// seeded runs the history of one seed.
func seeded(seed uint64, steps int) (n int, err error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	w, err := random(func(n int, _ string) int { return rnd.IntN(n) }, steps)
	if err != nil {
		err = fmt.Errorf("seed %d: %w", seed, err)
	}
	return w.steps, err
}

// TestSeeds makes histories that are longer than those of TestModel.
func TestSeeds(t *testing.T) {
	t.Parallel()
	const parts = 4
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 300
	}
	for part := range uint64(parts) {
		t.Run(fmt.Sprint("part ", part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < seeds; seed += parts {
				if _, err := seeded(seed, 300); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestLong does the same for as long as -long says.
func TestLong(t *testing.T) {
	if *long == 0 {
		t.Skip("-long 5m makes random histories for five minutes")
	}
	began, steps, seed := time.Now(), 0, uint64(1_000_000)
	for ; time.Since(began) < *long; seed++ {
		n, err := seeded(seed, 400)
		if err != nil {
			t.Fatal(err)
		}
		steps += n
	}
	t.Logf("%d steps in %d histories in %v without a violation", steps, seed-1_000_000, time.Since(began).Round(time.Second))
}

// TestExhaustive makes every history of a bound: two devices, three messages, one
// or two workers, and every order of events with every outcome.
func TestExhaustive(t *testing.T) {
	t.Parallel()
	for _, shape := range []struct {
		workers, hand int
		lanes         string
	}{{1, 1, "aba"}, {2, 4, "aba"}, {2, 1, "aab"}} {
		t.Run(fmt.Sprintf("%d workers, %d in memory, %s", shape.workers, shape.hand, shape.lanes), func(t *testing.T) {
			t.Parallel()
			histories, err := exhaust(func(choose chooser) error {
				w := newWorld(choose, small(shape.workers, shape.hand), nil, 3)
				for _, name := range shape.lanes {
					w.publish(string(name))
				}
				return w.run(*depth)
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d histories of %d steps", histories, *depth)
		})
	}
}

// exhaust makes a history with every row of choices, and ends at the first error.
func exhaust(history func(chooser) error) (histories int, err error) {
	var path, width []int
	for {
		at := 0
		choose := func(n int, _ string) int {
			if at == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			at++
			return path[at-1]
		}
		if err := history(choose); err != nil {
			return histories, fmt.Errorf("choices %v: %w", path, err)
		}
		histories++
		last := at - 1
		for last >= 0 && path[last]+1 == width[last] {
			last--
		}
		if last < 0 {
			return histories, nil
		}
		path, width = path[:last+1], width[:last+1]
		path[last]++
	}
}
