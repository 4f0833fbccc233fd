package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// TestDueAgreesWithExplain: the plan without words is the one with words, in every
// state that a device can be in.
func TestDueAgreesWithExplain(t *testing.T) {
	t.Parallel()
	policies := map[string]*schedule.Schedule{
		"adaptive": schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, Seed: 1}),
		"fixed":    schedule.NewFixed(time.Minute),
	}
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			p.SetRate(now, 600)
			for i := range 20 {
				p.Add(now, fmt.Sprint(i))
			}
			met := map[schedule.Reason]bool{}
			for step := range 3000 {
				now = now.Add(100 * time.Millisecond)
				if id, ok, _ := p.Next(now); ok && step%7 != 0 { // every seventh stays out for a while
					o := schedule.Observation{Fix: true, FixTime: now, Changed: step%3 == 0, Speed: float64(step % 5)}
					if step%11 == 0 {
						o = schedule.Observation{Failed: true, NotBefore: now.Add(5 * time.Second)}
					}
					p.Done(now, id, o)
				} else if ok {
					defer func() { p.Done(now, id, schedule.Observation{Failed: true}) }()
				}
				if step%50 == 0 {
					p.Soon(now, fmt.Sprint(step/50%20))
				}
				for i := range 21 { // the last does not exist
					id := fmt.Sprint(i)
					next, why := p.Due(now, id)
					met[why] = true
					if e := p.Explain(now, id); !next.Equal(e.Next) || why != e.Reason {
						t.Fatalf("step %d device %s: %v because %v, Explain says %v because %v", step, id, next, why, e.Next, e.Reason)
					}
				}
			}
			for _, want := range []schedule.Reason{schedule.ReasonUnknown, schedule.ReasonFirst, schedule.ReasonOut, schedule.ReasonAsked} {
				if !met[want] {
					t.Errorf("no device was ever in state %v", want)
				}
			}
		})
	}
}
