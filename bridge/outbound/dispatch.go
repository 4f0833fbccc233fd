package outbound

import (
	"context"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// dispatch hands devices to workers until ctx is cancelled.
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

// slot is the shortest sleep of the dispatcher. Waking once for all polls that are
// due within it costs far less at high rates than waking for each, and delays
// them by milliseconds.
const slot = 2 * time.Millisecond

// longestSleep lets the dispatcher show that it is alive.
const longestSleep = 5 * time.Second

// expired is a cancelled context, for calls that must not block.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// gate reports whether polls may go out, and else when to ask again. While the
// broker is away an answer could not be published, so none is asked for.
func (p *Pool) gate(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if p.state.stale() || !p.parts.Connected() || !p.parts.Owner.Live() {
		return now.Add(100 * time.Millisecond), false
	}
	if p.opts.Token != nil && p.opts.Token(expired) != nil {
		short, cancel := context.WithTimeout(ctx, longestSleep)
		defer cancel()
		if p.opts.Token(short) != nil {
			return now, false
		}
	}
	if c := p.parts.Circuit.State(); c.Open && now.Before(c.NextProbe) {
		return c.NextProbe, false
	}
	return time.Time{}, true
}

// hand waits for the budget and gives the device that the schedule chooses then to
// a worker. If there is nothing to poll before at, ok is false.
func (p *Pool) hand(ctx context.Context, timer *time.Timer) (at time.Time, ok bool) {
	// The budget may have no request left for an hour. The dispatcher shows
	// meanwhile that it is alive.
	short, cancel := context.WithTimeout(ctx, longestSleep)
	defer cancel()
	permit, err := p.parts.Budget.Wait(short, plaspy.Poll)
	if err != nil {
		return time.Now(), false
	}
	return p.send(ctx, timer, permit)
}

// send uses a permit for the device that the schedule chooses now. It gives up when
// ctx is cancelled.
func (p *Pool) send(ctx context.Context, timer *time.Timer, permit *plaspy.Permit) (at time.Time, ok bool) {
	now := time.Now()
	j, wake, found := p.fleet.next(now, p.parts.Budget.PollRate())
	if !found {
		permit.Return()
		return wake, false
	}
	if p.state.stale() { // since then a reading may have begun, which does not know that the device is busy
		permit.Return()
		j.reread = true
		p.putBack(&j)
		return now, false
	}
	// Asked last: while the API is down, this counts as a probe.
	if ok, at := p.parts.Circuit.Allow(now); !ok {
		permit.Return()
		p.putBack(&j)
		return at, false
	}
	t := &turn{pool: p, job: j, permit: permit}
	for {
		timer.Reset(longestSleep)
		select {
		case p.jobs <- t:
			return time.Time{}, true
		case <-timer.C: // every worker is busy
			p.alive()
		case <-ctx.Done():
			permit.Return()
			p.putBack(&j)
			return time.Time{}, false
		}
	}
}

// putBack returns a job that no worker took.
func (p *Pool) putBack(j *job) {
	if j.suspect {
		p.fleet.cleared()
	}
	p.fleet.release(j.d, time.Now(), decision{}, ending{reread: j.reread})
	p.fleet.askAgain(j)
}

func (p *Pool) alive() {
	if p.opts.Alive != nil {
		p.opts.Alive()
	}
}
