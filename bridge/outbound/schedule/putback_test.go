package schedule_test

import (
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// TestPutBackIsDueAtOnce: a device that was not asked about keeps its turn, or waits no longer than asked for.
func TestPutBackIsDueAtOnce(t *testing.T) {
	for _, wait := range []time.Duration{0, -time.Hour, 250 * time.Millisecond, 20 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			both(t, func(t *testing.T, p *schedule.Schedule) {
				p.SetRate(start, 600)
				addAll(p, start, 10)
				now := start.Add(5 * time.Minute)
				serve(p, start, now, time.Millisecond, nothing)
				p.Soon(now, name(7))
				id, ok, _ := p.Next(now)
				if !ok || id != name(7) {
					t.Fatalf("next: got %q, %v, want %q", id, ok, name(7))
				}
				var then time.Time
				if wait != 0 {
					then = now.Add(wait)
				}
				p.PutBack(now, id, then)
				p.PutBack(now, id, then.Add(time.Hour)) // not out any more: nothing happens
				for _, q := range serve(p, now, now.Add(time.Minute), time.Millisecond, nothing) {
					if q.id != name(7) {
						continue
					}
					if waited := q.at.Sub(now); waited < wait || waited > max(0, wait)*5/4+time.Second {
						t.Errorf("polled after %v, want after %v", waited, max(0, wait))
					}
					return
				}
				t.Error("it was not polled for a minute")
			})
		})
	}
}

// TestPutBackWhileRemoved: a device that was removed while out does not come back.
func TestPutBackWhileRemoved(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		addAll(p, start, 1)
		id, _, _ := p.Next(start)
		p.Remove(start, id)
		p.PutBack(start, id, time.Time{})
		if id, ok, wake := p.Next(start.Add(time.Hour)); ok || !wake.IsZero() {
			t.Errorf("got %q, wake %v, want nothing", id, wake)
		}
	})
}

// TestNow: a device that is left alone is polled when a caller waits for it, and not before if none does.
func TestNow(t *testing.T) {
	both(t, func(t *testing.T, p *schedule.Schedule) {
		addAll(p, start, 1)
		now := start
		id, ok, wake := p.Next(now)
		for ; !ok; id, ok, wake = p.Next(now) {
			if wake.IsZero() {
				t.Fatal("nothing is ever due")
			}
			now = wake.Add(time.Millisecond)
		}
		for range 3 {
			p.Done(now, id, schedule.Observation{Failed: true, NotBefore: now.Add(time.Hour)})
			now = now.Add(time.Second)
			p.Soon(now, id)
			if got, ok, _ := p.Next(now); ok {
				t.Fatalf("next: got %q, want nothing", got)
			}
			p.Now(now, id)
			if got, ok, _ := p.Next(now); !ok || got != id {
				t.Fatalf("next: got %q, %v, want %q", got, ok, id)
			}
		}
	})
}
