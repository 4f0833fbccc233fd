package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAllocate(t *testing.T) {
	type loads []int
	for _, tt := range []struct {
		name  string
		limit int
		loads loads
		posts int // of the first one
		want  []int
	}{
		{"alone", 600, loads{0}, 0, []int{600}},
		{"no loads known", 600, loads{0, 0, 0}, 0, []int{200, 200, 200}},
		{"in proportion", 602, loads{3000, 1000}, 0, []int{451, 151}},
		{"a newcomer is average", 603, loads{1000, 1000, 0}, 0, []int{201, 201, 201}},
		{"the idle one keeps a floor", 902, loads{4000, 1}, 0, []int{801, 101}},
		{"a remainder", 10, loads{1, 1, 1}, 0, []int{4, 3, 3}},
		{"fewer requests than replicas", 2, loads{9, 9, 9}, 0, []int{1, 1, 0}},
		{"no replicas", 600, nil, 0, []int{}},
		{"room for all posts", 603, loads{100, 100, 100}, 100, []int{301, 151, 151}},
		{"posts get half at most", 603, loads{200, 200, 200}, 100_000, []int{401, 101, 101}},
		{"posts get what polls leave", 603, loads{10, 10, 10}, 100_000, []int{581, 11, 11}},
		{"a newcomer posts", 603, loads{0, 200, 200}, 100_000, []int{401, 101, 101}},
		{"garbage in the bucket", 603, loads{1 << 62, -1, 5}, 1 << 62, []int{458, 115, 30}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var living []Candidate
			for i, l := range tt.loads {
				living = append(living, Candidate{Key: fmt.Sprint(i), ID: fmt.Sprint(i), Load: Bounded(l)})
			}
			if tt.posts > 0 {
				living[0].Posts = Bounded(tt.posts)
			}
			target := allocate(tt.limit, living)
			got := []int{}
			for _, c := range living {
				got = append(got, target[c.Key])
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPauseLength(t *testing.T) {
	for _, tt := range []struct {
		name                       string
		free, lowered, begin, more int
		want                       time.Duration
	}{
		{"one joins one at 600", 300, 1, 1, 0, window * 2 / 300},
		{"one of three leaves", 200, 1, 0, 2, window * 5 / 200},
		{"one of fifty leaves", 12, 1, 0, 12, window},
	} {
		if got := pause(tt.free, tt.lowered, tt.begin, tt.more); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// fleet plays a group without a bucket: plans are obeyed at once by all.
type fleet struct {
	plan   Plan
	living []Candidate
	idle   time.Duration
	limit  int
}

func (f *fleet) situation() *Situation {
	return &Situation{
		Plan: f.plan, Committed: true, Idle: f.idle, Limit: f.limit, Living: f.living,
		Gone: func(key string) bool {
			return !slices.ContainsFunc(f.living, func(c Candidate) bool { return c.Key == key })
		},
	}
}

func (f *fleet) join(key string) {
	f.living = append(f.living, Candidate{Key: key, ID: "name " + key})
	slices.SortFunc(f.living, func(a, b Candidate) int { return strings.Compare(a.Key, b.Key) })
}

func (f *fleet) leave(i int) { f.living = slices.Delete(f.living, i, i+1) }

// TestDrafts: plans never give out more than the limit, never raise and take in
// the same plan, count up, and come to rest with everything given out.
func TestDrafts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		f := &fleet{limit: 1 + random.IntN(2000)}
		if seed%20 == 0 {
			f.limit = 0
		}
		for event := range 60 {
			switch n := len(f.living); {
			case n == 0 || n < 50 && random.IntN(2) == 0:
				f.join(fmt.Sprintf("k%02d-%d", random.IntN(100), event))
			case random.IntN(3) == 0:
				f.living[random.IntN(n)].Load = random.IntN(5000)
				f.living[random.IntN(n)].Posts = random.IntN(3) * random.IntN(5000)
			default:
				f.leave(random.IntN(n))
			}
			f.settle(t)
		}
	}
}

// settle lets plans follow each other until none is due.
func (f *fleet) settle(t *testing.T) {
	t.Helper()
	for range 100 {
		s := f.situation()
		next, again, ok := s.Draft()
		if !ok && again == 0 {
			f.rested(t)
			return
		}
		if !ok {
			if again > window {
				t.Fatalf("a pause of %v", again)
			}
			f.idle += again
			continue
		}
		f.follow(t, next)
		f.idle = 0
	}
	t.Fatalf("no rest: %+v", f.plan)
}

func (f *fleet) follow(t *testing.T, next Plan) {
	t.Helper()
	if next.Epoch != f.plan.Epoch+1 || !next.Valid() {
		t.Fatalf("%+v after %+v", next, f.plan)
	}
	raised, lowered := false, len(next.Seats) < len(f.plan.Seats)
	for _, s := range next.Seats {
		old, _ := f.plan.Seat(s.Key)
		raised, lowered = raised || s.Slots > old.Slots, lowered || s.Slots < old.Slots
	}
	if raised && lowered {
		t.Fatalf("%+v takes and gives after %+v: no pause", next, f.plan)
	}
	f.plan = next
}

func (f *fleet) rested(t *testing.T) {
	t.Helper()
	limit := f.limit
	if limit == 0 {
		limit = unlimited
	}
	if got := f.plan.Slots(); len(f.living) > 0 && got != limit {
		t.Fatalf("at rest %d of %d are given out: %+v", got, limit, f.plan)
	}
	for _, c := range f.living {
		if s, _ := f.plan.Seat(c.Key); s.Slots == 0 && limit >= len(f.living) {
			t.Fatalf("%s has nothing: %+v", c.Key, f.plan)
		}
	}
}

// TestDrift checks that shares follow the work, not at every small change and
// not at once.
func TestDrift(t *testing.T) {
	f := &fleet{limit: 600}
	f.join("a")
	f.join("b")
	f.settle(t)
	slots := func() []int { return []int{f.plan.Seats[0].Slots, f.plan.Seats[1].Slots} }
	for _, tt := range []struct {
		name string
		a, b int
		idle time.Duration
		want []int
	}{
		{"a little", 1010, 990, time.Hour, []int{300, 300}},
		{"much, just now", 3000, 1000, calm - 1, []int{300, 300}},
		{"much, for a while", 3000, 1000, calm, []int{450, 150}},
	} {
		f.living[0].Load, f.living[1].Load, f.idle = tt.a, tt.b, tt.idle
		f.settle(t)
		if d := cmp.Diff(tt.want, slots()); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestSlidingMinute: real budgets, each used to the full, under the plans of a
// group with members that join, leave and are killed at random, never send more in any
// minute than the limit. Without the pauses they would.
func TestSlidingMinute(t *testing.T) {
	for _, limit := range []int{10, 60, 600} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%d a minute, seed %d", limit, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					most := mostInAMinute(play(t, limit, seed))
					if most > limit {
						t.Errorf("%d requests in a minute, limit %d", most, limit)
					}
					t.Logf("%d of %d", most, limit)
				})
			})
		}
	}
}

// mostInAMinute is the most of these times, in order, that lie within a minute.
func mostInAMinute(sent []time.Time) (most int) {
	first := 0
	for i, at := range sent {
		for at.Sub(sent[first]) >= time.Minute {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
