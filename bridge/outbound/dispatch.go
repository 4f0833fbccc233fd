package outbound

import (
	"context"
	"math"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
)

// dispatch hands devices to workers until the context ends.
func (p *Pool) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for ctx.Err() == nil {
		p.alive()
		at, ok := p.gate(ctx)
		if ok {
			at, ok = p.hand(ctx, timer)
		}
		if ok {
			continue
		}
		sleep := longestSleep
		if !at.IsZero() {
			sleep = min(max(time.Until(at), slot), longestSleep)
		}
		timer.Reset(sleep)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// slot is how long the dispatcher sleeps at least: waking once for all that
// falls due within it, instead of once per poll, saves most of the cost of
// waking at high rates, for a delay that nobody sees.
const slot = 2 * time.Millisecond

// longestSleep lets the dispatcher show that it is alive.
const longestSleep = 5 * time.Second

// past is a context that has ended: whoever waits under it does not.
var past = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// gate reports whether polls may go out, and else when to ask again. While the
// broker is away an answer could not be published, so none is asked for.
func (p *Pool) gate(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if p.stale() || !p.stream.Connected() || p.opts.Live != nil && !p.opts.Live() {
		return now.Add(100 * time.Millisecond), false
	}
	if p.opts.Token != nil && p.opts.Token(past) != nil {
		short, cancel := context.WithTimeout(ctx, longestSleep)
		defer cancel()
		if p.opts.Token(short) != nil {
			return now, false
		}
	}
	if ok, at := p.circuit.Allow(now); !ok {
		return at, false
	}
	return time.Time{}, true
}

// hand waits for a slot of the budget and gives the device that the schedule
// chooses for it to a worker. The choice is made when the slot is there, so
// that it is made on what is known then. ok is false where there is nothing to
// poll before at.
func (p *Pool) hand(ctx context.Context, timer *time.Timer) (at time.Time, ok bool) {
	// The budget may have nothing for an hour: the dispatcher shows that it is
	// alive meanwhile.
	short, cancel := context.WithTimeout(ctx, longestSleep)
	defer cancel()
	permit, err := p.budget.Wait(short, plaspy.Poll)
	if err != nil {
		return time.Now(), false
	}
	j, wake, found := p.next()
	if !found {
		permit.Return()
		return wake, false
	}
	j.permit = permit
	for {
		timer.Reset(longestSleep)
		select {
		case p.jobs <- j:
			return time.Time{}, true
		case <-timer.C: // every worker waits for the budget
			p.alive()
		case <-ctx.Done():
			permit.Return()
			p.putBack(j)
			return time.Time{}, false
		}
	}
}

func (p *Pool) alive() {
	if p.opts.Alive != nil {
		p.opts.Alive()
	}
}

// next takes the device to poll now from the schedule.
func (p *Pool) next() (job, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.rated) >= time.Second {
		p.rated = now
		p.setRate(now, scheduleRate(p.budget.PollRate()))
	}
	for {
		id, ok, wake := p.policy.Next(now)
		if !ok {
			return job{}, wake, false
		}
		d := p.byID[id]
		switch {
		case d == nil: // removed meanwhile
			p.policy.PutBack(now, id, time.Time{})
		case d.busy: // removed and added again while its chain is on its way
			p.policy.PutBack(now, id, now.Add(suspectWait))
		case d.failures > 0 && p.suspects >= p.suspectLimit():
			p.policy.PutBack(now, id, now.Add(suspectWait))
		default:
			j := job{d: d, suspect: d.failures > 0, doubtful: d.doubtful}
			d.busy, d.doubtful, d.title = true, false, d.name
			p.busy++
			if j.suspect {
				p.suspects++
			}
			return j, time.Time{}, true
		}
	}
}

// setRate tells the schedule a rate that is not the one it plans with. What
// other requests take wavers by a few, for which it need not plan anew.
func (p *Pool) setRate(now time.Time, rate float64) {
	const wavers = 0.03
	if p.rate >= 0 && math.Abs(rate-p.rate) <= wavers*p.rate {
		return
	}
	p.rate = rate
	p.policy.SetRate(now, rate)
}

// scheduleRate spells a rate as the schedule does: 0 is no limit, so that
// hardly any must not read as 0.
func scheduleRate(perMinute float64) float64 {
	if math.IsInf(perMinute, 1) {
		return 0
	}
	return max(perMinute, 1e-3)
}

// suspectWait is how long a device that fails waits where too many such are
// being polled.
const suspectWait = 250 * time.Millisecond

// suspectLimit keeps devices whose polls hang from taking up every worker.
func (p *Pool) suspectLimit() int { return max(p.opts.Workers/4, 1) }

func (p *Pool) putBack(j job) {
	p.mu.Lock()
	if j.suspect {
		p.suspects--
	}
	j.d.doubtful = j.d.doubtful || j.doubtful
	p.mu.Unlock()
	p.release(j.d, schedule.Observation{Failed: true})
}

// release ends a device's turn and gives it back to the schedule.
func (p *Pool) release(d *device, seen schedule.Observation) {
	now := time.Now()
	d.endTrace()
	p.mu.Lock()
	d.busy = false
	d.keep(now)
	p.ended++
	p.policy.Done(now, d.id, seen)
	p.touch(d)
	if p.busy--; p.busy == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
	p.mu.Unlock()
	nudge(p.wake)
}
