package plaspy_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"plaspy-bridge/bridge/plaspy"
)

func newBudget(perMinute int) *plaspy.Budget {
	return plaspy.NewBudget(perMinute, slog.New(slog.DiscardHandler), nil)
}

// record has the requests that an API would count.
type record struct {
	mu sync.Mutex
	at []time.Time
	by map[plaspy.Kind]int
}

func (r *record) add(k plaspy.Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Now())
	if r.by == nil {
		r.by = map[plaspy.Kind]int{}
	}
	r.by[k]++
}

func (r *record) count(k plaspy.Kind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[k]
}

// worst returns the most requests in any closed span of a minute, and by how much at most any span from the
// first request on was ahead of the even pace of perMinute.
func (r *record) worst(perMinute int) (inMinute int, lead float64) {
	low := math.Inf(1)
	for i, j := 0, 0; j < len(r.at); j++ {
		for r.at[j].Sub(r.at[i]) > time.Minute {
			i++
		}
		inMinute = max(inMinute, j-i+1)
		// How far the count is above a line of slope perMinute, less the lowest it ever was before.
		level := float64(j) - float64(perMinute)*r.at[j].Sub(r.at[0]).Minutes()
		low = min(low, level)
		lead = max(lead, level-low+1)
	}
	return inMinute, lead
}

// use runs workers that ask for slots until ctx is done, thinking for think in between.
func use(ctx context.Context, wg *sync.WaitGroup, b *plaspy.Budget, r *record, k plaspy.Kind, workers int, think func() time.Duration) {
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.Wait(ctx, k); err == nil {
					r.add(k)
				}
				if think != nil {
					time.Sleep(think())
				}
			}
		})
	}
}

func TestBudgetHoldsOverEveryMinute(t *testing.T) {
	for _, perMinute := range []int{1, 2, 7, 10, 59, 60, 100, 600, 6000} {
		for _, tc := range []struct {
			name  string
			think func() time.Duration
			busy  bool // demand never ends
		}{
			{"saturated", nil, true},
			{"bursts", func() time.Duration { return time.Duration(rand.N(3)) * rand.N(90*time.Second) }, false},
			{"steady", func() time.Duration { return rand.N(2 * time.Minute / time.Duration(perMinute)) }, false},
		} {
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					span := 5 * time.Minute
					ctx, cancel := context.WithTimeout(t.Context(), span)
					defer cancel()
					b, r := newBudget(perMinute), &record{}
					start := time.Now()
					var wg sync.WaitGroup
					use(ctx, &wg, b, r, plaspy.Poll, 20, tc.think)
					use(ctx, &wg, b, r, plaspy.Post, 5, tc.think)
					wg.Go(func() { // some with a short deadline
						for ctx.Err() == nil {
							short, stop := context.WithTimeout(ctx, rand.N(time.Second)+1)
							if _, err := b.Wait(short, plaspy.Post); err == nil {
								r.add(plaspy.Post)
							}
							stop()
						}
					})
					wg.Wait()
					inMinute, lead := r.worst(perMinute)
					if inMinute > perMinute {
						t.Errorf("%d: %d requests in a minute", perMinute, inMinute)
					}
					if lead > max(1.01, float64(perMinute)/10) {
						t.Errorf("%d: %.2f requests ahead of the even pace", perMinute, lead)
					}
					if len(r.at) > 0 && r.at[0].Sub(start) < time.Minute/time.Duration(perMinute) {
						t.Errorf("%d: first request after %v", perMinute, r.at[0].Sub(start))
					}
					if want := span.Minutes() * float64(perMinute) * 0.98; tc.busy && float64(len(r.at)) < math.Floor(want) {
						t.Errorf("%d: %d requests, want %.0f: pace was lost", perMinute, len(r.at), want)
					}
				})
			})
		}
	}
}

// Requests leave later than their slots were due: a permit is used late, a timer fires late. That must neither
// cost pace nor break the minute.
func TestLatenessStaysWithinTheSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perMinute = 600
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		b, r := newBudget(perMinute), &record{}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for {
					p, err := b.Wait(ctx, plaspy.Poll)
					if err != nil {
						return
					}
					time.Sleep(rand.N(350 * time.Millisecond)) // now and then too late for the permit
					req, err := http.NewRequestWithContext(plaspy.WithPermit(ctx, p), http.MethodGet, "http://x", nil)
					if err != nil {
						t.Error(err)
						return
					}
					if b.Admit(req) == nil {
						r.add(plaspy.Poll)
					}
					p.Return()
				}
			})
		}
		wg.Wait()
		inMinute, lead := r.worst(perMinute)
		if inMinute > perMinute || lead > perMinute/10 || len(r.at) < 4500 {
			t.Errorf("got %d in a minute, a lead of %.1f and %d in all", inMinute, lead, len(r.at))
		}
	})
}

func TestRestartKeepsTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, perMinute := range []int{5, 60, 600} {
			r := &record{}
			for range 30 { // a process that is killed again and again
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Second))
				var wg sync.WaitGroup
				use(ctx, &wg, newBudget(perMinute), r, plaspy.Poll, 3, nil)
				wg.Wait()
				cancel()
			}
			if got, _ := r.worst(perMinute); got > perMinute {
				t.Errorf("%d: got %d in a minute", perMinute, got)
			}
		}
	})
}

func TestSharesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, perMinute := range []int{60, 100, 600} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			r := &record{}
			budgets := []*plaspy.Budget{newBudget(perMinute), newBudget(perMinute), newBudget(perMinute)}
			var wg sync.WaitGroup
			for i, share := range []float64{0.341, 0.343, 0.316} {
				budgets[i].SetShare(share)
				use(ctx, &wg, budgets[i], r, plaspy.Poll, 3, nil)
			}
			wg.Wait()
			cancel()
			got, _ := r.worst(perMinute)
			if got > perMinute || got < perMinute*94/100 {
				t.Errorf("%d: got %d in the fullest minute", perMinute, got)
			}
		}
	})
}

func TestRetryAfterStopsEverybody(t *testing.T) {
	for _, perMinute := range []int{0, 600} {
		synctest.Test(t, func(t *testing.T) {
			var told time.Time
			b := newBudget(perMinute)
			b.OnThrottle(func(until time.Time, _ float64) { told = until })
			other := newBudget(perMinute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r := &record{}
			var wg sync.WaitGroup
			time.Sleep(time.Second)
			until := time.Now().Add(30 * time.Second)
			b.Throttled(30*time.Second, true)
			if !told.Equal(until) {
				t.Errorf("the throttling was announced until %v, want %v", told, until)
			}
			other.ThrottleUntil(told, 1)
			pause := func() time.Duration { return 10 * time.Millisecond }
			for _, b := range []*plaspy.Budget{b, other} {
				use(ctx, &wg, b, r, plaspy.Token, 2, pause)
				use(ctx, &wg, b, r, plaspy.Poll, 10, pause)
			}
			wg.Wait()
			if first := r.at[0]; first.Before(until) || first.Sub(until) > 200*time.Millisecond {
				t.Errorf("first request %v after the end of the stop", first.Sub(until))
			}
		})
	}
}

func TestThrottlingHalvesAndClimbs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		reg := prometheus.NewRegistry()
		b := plaspy.NewBudget(600, slog.New(slog.NewTextHandler(&out, nil)), reg)
		b.Throttled(0, false)
		for range 15 {
			b.Throttled(0, false) // the answers to earlier requests
		}
		rate := func() float64 { return b.PollRate() * 1.02 }
		if got := rate(); math.Abs(got-300) > 0.1 {
			t.Errorf("got %v, want 300", got)
		}
		time.Sleep(20 * time.Second)
		if got := rate(); math.Abs(got-360) > 0.1 {
			t.Errorf("after 20 s got %v, want 360", got)
		}
		b.Throttled(0, false)
		if got := rate(); math.Abs(got-180) > 0.1 {
			t.Errorf("after another got %v, want 180", got)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if got := rate(); math.Abs(got-600) > 0.1 {
			t.Errorf("in the end got %v, want 600", got)
		}
		for range 100 {
			b.Throttled(0, true) // a Retry-After of 0 is as good as none
			time.Sleep(time.Second)
		}
		if got := rate(); got < 5.9 || got > 7 {
			t.Errorf("the lowest is %v, want 6", got)
		}
		if got := strings.Count(out.String(), "slowing down"); got != 2 {
			t.Errorf("got %d lines for the beginning, want 2", got)
		}
		if got := strings.Count(out.String(), "throttling ended"); got != 1 {
			t.Errorf("got %d lines for the end, want 1: %s", got, &out)
		}
		if got, err := testutil.GatherAndCount(reg, "plaspy_bridge_api_throttled_total", "plaspy_bridge_api_budget_requests_per_minute"); got != 2 || err != nil {
			t.Errorf("got %d metrics, %v", got, err)
		}
	})
}

// An API that answers every retry with another Retry-After is one throttling, not many.
func TestThrottlingIsLoggedOnce(t *testing.T) {
	for _, perMinute := range []int{0, 600} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			b := plaspy.NewBudget(perMinute, slog.New(slog.NewTextHandler(&out, nil)), nil)
			for range 10 {
				b.Throttled(5*time.Second, true)
				time.Sleep(6 * time.Second)
				if _, err := b.Wait(t.Context(), plaspy.Poll); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute) // without requests
			synctest.Wait()
			began, ended := strings.Count(out.String(), "slowing down"), strings.Count(out.String(), "throttling ended")
			if began != 1 || ended != 1 || !strings.Contains(out.String(), "attempt=10") {
				t.Errorf("%d: got %d and %d lines: %s", perMinute, began, ended, &out)
			}
		})
	}
}

func TestUnlimitedIsThrottledToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(0)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := b.Wait(t.Context(), plaspy.Poll); p != nil || err != nil || !math.IsInf(b.PollRate(), 1) {
			t.Error("there is a limit")
		}
		for range 2000 { // 6000 a minute
			if err := b.Admit(req); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		b.Throttled(0, false)
		if got := b.PollRate() * 1.02; got < 2800 || got > 3200 {
			t.Errorf("got %v, want half of the 6000 that were observed", got)
		}
		start := time.Now()
		for range 50 {
			if err := b.Admit(req); err != nil && !errors.Is(err, plaspy.ErrNoBudget) {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got < 900*time.Millisecond {
			t.Errorf("50 requests took %v, want a second", got)
		}
		time.Sleep(3 * time.Minute)
		if !math.IsInf(b.PollRate(), 1) {
			t.Error("it does not end")
		}
	})
}

func TestPermits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60)
		send := func(p *plaspy.Permit) time.Duration {
			t.Helper()
			ctx := plaspy.WithKind(plaspy.WithPermit(t.Context(), p), plaspy.Poll)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x", nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := b.Admit(req); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		get := func() *plaspy.Permit {
			t.Helper()
			p, err := b.Wait(t.Context(), plaspy.Poll)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := get()
		if got := send(p); got != 0 {
			t.Errorf("a permit's request waited %v", got)
		}
		if got := send(p); got == 0 {
			t.Error("a permit was used for two requests")
		}
		p.Return()
		p = get()
		p.Return()
		start := time.Now()
		p = get()
		if got := time.Since(start); got != 0 {
			t.Errorf("a returned slot was missing for %v", got)
		}
		time.Sleep(time.Minute)
		if got := send(p); got != 0 {
			t.Errorf("after an idle minute the request waited %v", got)
		}
		start = time.Now()
		if get(); time.Since(start) < time.Second {
			t.Error("an old permit was used besides a new slot")
		}
		if got := send(nil); got == 0 {
			t.Error("no permit is needed")
		}
	})
}

func TestCancelledWaiterGivesItsPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60)
		var wg sync.WaitGroup
		cause := errors.New("enough")
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, cause)
				defer cancel()
				if _, err := b.Wait(ctx, plaspy.Poll); !errors.Is(err, cause) {
					t.Errorf("got %v, want the cause", err)
				}
			})
		}
		wg.Wait()
		start := time.Now()
		if _, err := b.Wait(t.Context(), plaspy.Poll); err != nil || time.Since(start) > 600*time.Millisecond {
			t.Errorf("waited %v behind cancelled requests: %v", time.Since(start), err)
		}
	})
}

func TestSlotsCloseTogetherAreGivenOutAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60_000)
		begin, last := time.Now(), time.Time{}
		polls, wakes := 0, 0
		for time.Since(begin) < 10*time.Second {
			if _, err := b.Wait(t.Context(), plaspy.Poll); err != nil {
				t.Fatal(err)
			}
			if now := time.Now(); !now.Equal(last) {
				last = now
				wakes++
			}
			polls++
		}
		if polls < 9_750 || polls > 9_815 {
			t.Errorf("%d polls in 10 s, want one each 1.02 ms", polls)
		}
		if wakes > 1_010 {
			t.Errorf("the timer fired %d times, want once in 10 ms", wakes)
		}
	})
}
