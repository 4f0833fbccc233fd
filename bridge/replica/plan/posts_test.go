package plan

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// worker is a replica that polls without end, and posts a backlog.
type worker struct {
	budget *plaspy.Budget

	mu    sync.Mutex
	polls []time.Time
	posts []time.Time
	left  int // posts to be made
}

func (w *worker) use(ctx context.Context, k plaspy.Kind, enough func() bool) {
	for !enough() {
		if _, err := w.budget.Wait(ctx, k); err != nil {
			return
		}
		w.mu.Lock()
		if k == plaspy.Post {
			w.posts = append(w.posts, time.Now())
			w.left--
		} else {
			w.polls = append(w.polls, time.Now())
		}
		w.mu.Unlock()
	}
}

func (w *worker) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left <= 0
}

// pollsIn counts the polls of a minute.
func (w *worker) pollsIn(from time.Time) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.polls {
		if !at.Before(from) && at.Before(from.Add(time.Minute)) {
			n++
		}
	}
	return n
}

// TestBacklogInAGroup: of three replicas one has 1,000 messages to post. It gets a
// larger share, so that they are posted at half the group's rate and no replica's
// polls come to a halt; afterwards all share evenly again. No minute has more
// requests than the limit, and the plan does not change at every breath.
func TestBacklogInAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, backlog = 600, 1000
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		f := &fleet{limit: limit}
		workers := make(map[string]*worker)
		for _, key := range []string{"a", "b", "c"} {
			f.join(key)
			w := &worker{budget: plaspy.NewBudget(limit, slog.New(slog.DiscardHandler), nil)}
			w.budget.SetShare(0)
			workers[key] = w
			for range 4 {
				wg.Go(func() { w.use(ctx, plaspy.Poll, func() bool { return false }) })
			}
		}
		holder := workers["b"]
		start := time.Now()
		since, plans := start, 0
		step := func(until time.Time) {
			for time.Now().Before(until) {
				time.Sleep(time.Second) // in simulated time
				for i := range f.living {
					f.living[i].Load = limit / 3
				}
				holder.mu.Lock()
				f.living[1].Posts = holder.left + min(len(holder.posts), 300)
				if holder.left <= 0 {
					f.living[1].Posts = 0
				}
				holder.mu.Unlock()
				f.idle = time.Since(since)
				if p, _, ok := f.situation().Draft(); ok {
					f.follow(t, p)
					since = time.Now()
					plans++
					for _, s := range p.Seats {
						share := float64(s.Slots) / limit
						workers[s.Key].budget.SetShare(share)
						workers[s.Key].budget.FavorPosts(2*share*float64(len(p.Seats)) - 1)
					}
				}
			}
		}
		step(start.Add(3 * time.Minute))
		holder.left = backlog
		begun, before := time.Now(), plans
		for range 4 {
			wg.Go(func() { holder.use(ctx, plaspy.Post, holder.done) })
		}
		for !holder.done() && time.Since(begun) < 20*time.Minute {
			step(time.Now().Add(time.Second))
		}
		took := time.Since(begun)
		t.Logf("%d posts in %v, %d plans", backlog, took, plans-before)
		if took > 5*time.Minute {
			t.Errorf("posting %d took %v, want about %v", backlog, took, time.Minute*backlog/(limit/2))
		}
		if changes := plans - before; changes > 2*int(took/calm)+2 {
			t.Errorf("%d plans in %v", changes, took)
		}
		for key, w := range workers {
			for from := begun.Add(time.Minute); from.Add(time.Minute).Before(begun.Add(took)); from = from.Add(10 * time.Second) {
				if n := w.pollsIn(from); n < 75 || n > 130 {
					t.Errorf("%s polled %d times in a minute of the backlog, want about 100", key, n)
				}
			}
		}
		step(time.Now().Add(3 * time.Minute))
		for key, w := range workers {
			if n := w.pollsIn(time.Now().Add(-time.Minute)); n < 180 {
				t.Errorf("%s polled %d times in the last minute, want about 196", key, n)
			}
		}
		cancel()
		wg.Wait()
		var all []time.Time
		for _, w := range workers {
			all = append(append(all, w.polls...), w.posts...)
		}
		slices.SortFunc(all, time.Time.Compare)
		if most := mostInAMinute(all); most > limit {
			t.Errorf("%d requests in a minute, limit %d", most, limit)
		}
	})
}
