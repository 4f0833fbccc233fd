package plaspy_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

func TestKindsShareTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		b, r := newBudget(600), &record{}
		var wg sync.WaitGroup
		use(ctx, &wg, b, r, plaspy.Poll, 50, nil)
		time.Sleep(5 * time.Minute)
		if got := r.count(plaspy.Poll); got < 2850 {
			t.Errorf("polls alone got %d of 3000", got)
		}
		polls := r.count(plaspy.Poll)
		use(ctx, &wg, b, r, plaspy.Post, 5, nil)
		wg.Wait()
		polls = r.count(plaspy.Poll) - polls
		if posts := r.count(plaspy.Post); posts < polls-5 || posts > polls+5 {
			t.Errorf("got %d posts and %d polls, want as many", posts, polls)
		}
		if got := b.PollRate(); got < 600/1.02/2-5 || got > 600/1.02/2+5 {
			t.Errorf("got a poll rate of %v, want about the half", got)
		}
	})
}

// A replica that posts for three has a share for it; its polls keep theirs.
func TestPostsAreFavoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		b, r := newBudget(600), &record{}
		b.SetShare(2. / 3)
		b.FavorPosts(3)
		var wg sync.WaitGroup
		use(ctx, &wg, b, r, plaspy.Poll, 50, nil)
		use(ctx, &wg, b, r, plaspy.Post, 5, nil)
		time.Sleep(5 * time.Minute)
		if got := b.Waiting(plaspy.Post); got != 5 {
			t.Errorf("%d posts wait, want 5", got)
		}
		if got := b.PollRate(); got < 400/1.02/4-5 || got > 400/1.02/4+5 {
			t.Errorf("got a poll rate of %v, want about a quarter", got)
		}
		wg.Wait()
		if polls, posts := r.count(plaspy.Poll), r.count(plaspy.Post); posts < 3*polls-10 || posts > 3*polls+10 {
			t.Errorf("got %d posts and %d polls, want three times as many", posts, polls)
		}
		if got := b.Waiting(plaspy.Post); got != 0 {
			t.Errorf("%d posts wait, want none", got)
		}
		for _, none := range []float64{0, -1, 0.5, math.NaN()} {
			b.FavorPosts(none)
			before := b.PollRate()
			b.FavorPosts(1)
			if got := b.PollRate(); got != before {
				t.Errorf("a favour of %v is none: got a poll rate of %v and %v", none, before, got)
			}
		}
	})
}

func TestTokenAndListGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		b, r := newBudget(60), &record{}
		var wg sync.WaitGroup
		use(ctx, &wg, b, r, plaspy.Poll, 100, nil)
		time.Sleep(time.Minute + time.Millisecond)
		for _, k := range []plaspy.Kind{plaspy.Token, plaspy.List} {
			start := time.Now()
			if _, err := b.Wait(ctx, k); err != nil || time.Since(start) > 1100*time.Millisecond {
				t.Errorf("kind %d waited %v: %v", k, time.Since(start), err)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestQueriesGetAQuarter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		b, queries, r := newBudget(600), &record{}, &record{}
		var wg sync.WaitGroup
		use(ctx, &wg, b, r, plaspy.Poll, 20, nil)
		full := 0
		for range 30 {
			wg.Go(func() {
				for ctx.Err() == nil {
					start := time.Now()
					_, err := b.Wait(ctx, plaspy.Query)
					switch {
					case err == nil:
						queries.add(plaspy.Query)
					case errors.Is(err, plaspy.ErrNoBudget):
						if time.Since(start) != 0 && ctx.Err() == nil {
							t.Error("ErrNoBudget was late")
						}
						r.mu.Lock()
						full++
						r.mu.Unlock()
						time.Sleep(100 * time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		if got, _ := queries.worst(600); got > 150 || got < 140 {
			t.Errorf("got %d queries in the fullest minute, want up to 150", got)
		}
		if full == 0 {
			t.Error("no query was refused")
		}
	})
}

func TestQueryRefusedBeforeItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(600)
		b.Throttled(time.Minute, true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := b.Wait(ctx, plaspy.Query); !errors.Is(err, plaspy.ErrNoBudget) {
			t.Errorf("got %v, want %v", err, plaspy.ErrNoBudget)
		}
		if plaspy.Classify(plaspy.ErrNoBudget) != plaspy.Throttled {
			t.Error("class")
		}
	})
}

// TestQueryAtItsDeadline: a query that still waits for the budget at its deadline was
// not sent, so that the API is not blamed.
func TestQueryAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60)
		if _, err := b.Wait(t.Context(), plaspy.Poll); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(100*time.Millisecond, func() { b.Throttled(time.Minute, true) })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := b.Wait(ctx, plaspy.Query); !errors.Is(err, plaspy.ErrNoBudget) || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %v, want %v at the deadline", err, time.Since(start), plaspy.ErrNoBudget)
		}
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		if _, err := b.Wait(ctx, plaspy.Poll); !errors.Is(err, context.Canceled) {
			t.Errorf("a poll: got %v, want the context's error", err)
		}
	})
}

func TestSmallBudgetsServeQueriesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := newBudget(2), 0
		for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(time.Second) {
			if _, err := b.Wait(t.Context(), plaspy.Query); err == nil {
				got++
			}
		}
		if got < 25 || got > 31 {
			t.Errorf("got %d queries in an hour, want a quarter of 120", got)
		}
	})
}
