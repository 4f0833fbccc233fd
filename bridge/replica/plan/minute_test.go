package plan

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// sender uses the whole budget until it is stopped.
type sender struct {
	budget *plaspy.Budget
	stop   context.CancelFunc
	done   sync.WaitGroup
	sent   []time.Time
}

func newSender(limit int) *sender {
	s := &sender{budget: plaspy.NewBudget(limit, slog.New(slog.DiscardHandler), nil)}
	s.budget.SetShare(0)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Go(func() {
		for {
			if _, err := s.budget.Wait(ctx, plaspy.Poll); err != nil {
				return
			}
			s.sent = append(s.sent, time.Now())
		}
	})
	return s
}

// play gives when requests were sent by replicas that join, leave, die and get
// more and less to do for ten minutes.
func play(t *testing.T, limit int, seed uint64) (all []time.Time) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, uint64(limit)))
	f := &fleet{limit: limit}
	senders := make(map[string]*sender)
	end := func(key string) {
		s := senders[key]
		s.stop()
		s.done.Wait()
		all = append(all, s.sent...)
		delete(senders, key)
	}
	since := time.Now()
	next := since
	for start := since; time.Since(start) < 10*time.Minute; {
		if !time.Now().Before(next) {
			next = time.Now().Add(time.Duration(random.IntN(40_000)) * time.Millisecond)
			if n := len(f.living); n == 0 || n < 8 && random.IntN(2) == 0 {
				key := fmt.Sprintf("%d-%d", random.IntN(100), time.Now().UnixNano())
				f.join(key)
				senders[key] = newSender(limit)
			} else {
				i := random.IntN(n)
				end(f.living[i].Key)
				f.leave(i)
			}
			for i := range f.living {
				f.living[i].Load, f.living[i].Posts = 1+random.IntN(300), 0
			}
			if n := len(f.living); n > 0 { // it passes from one to another, too
				f.living[random.IntN(n)].Posts = random.IntN(2) * random.IntN(2000)
			}
		}
		f.idle = time.Since(since)
		if p, _, ok := f.situation().Draft(); ok {
			f.follow(t, p)
			since = time.Now()
			for _, place := range p.Seats {
				senders[place.Key].budget.SetShare(float64(place.Slots) / float64(limit))
			}
		}
		time.Sleep(time.Duration(1+random.IntN(100)) * time.Millisecond) // in simulated time
	}
	for key := range senders {
		end(key)
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}
