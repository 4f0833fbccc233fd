package harness

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Inject carries a plan out, counted from now, and then waits until its length
// is over. When it returns without an error, all that was broken is whole again,
// though the bridge may not have noticed yet.
func (r *Rig) Inject(ctx context.Context, p Plan, length time.Duration) error {
	start := time.Now()
	var bridge, broker, api Plan
	for _, s := range p {
		switch s.Act {
		case KillBridge, StopBridge, PauseBridge:
			bridge = append(bridge, s)
		case KillBroker, StopBroker, PauseBroker, Rollback, Delete:
			broker = append(broker, s)
		default:
			api = append(api, s)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, lane := range []Plan{bridge, broker, api} {
		g.Go(func() error {
			for _, s := range lane {
				if err := until(ctx, start.Add(s.At)); err != nil {
					return err
				}
				if err := r.step(ctx, s); err != nil {
					return fmt.Errorf("%w: %s: %w", errPlan, s, err)
				}
			}
			return nil
		})
	}
	g.Go(func() error { return until(ctx, start.Add(length)) })
	return g.Wait()
}

func until(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Rig) step(ctx context.Context, s Step) error {
	over := func() error { return until(ctx, time.Now().Add(s.For)) }
	switch s.Act {
	case KillBridge:
		return inTurn(r.Bridge.Kill, over, func() error { return r.Bridge.Start(ctx) })
	case StopBridge:
		stop := func() error { _, err := r.Bridge.Stop(ctx); return err } // Report looks at the status
		return inTurn(stop, over, func() error { return r.Bridge.Start(ctx) })
	case PauseBridge:
		return inTurn(r.Bridge.Pause, over, r.Bridge.Resume)
	case KillBroker:
		return inTurn(r.Broker.Kill, over, func() error { return r.Broker.Start(ctx) })
	case StopBroker:
		return inTurn(func() error { return r.Broker.Stop(ctx) }, over, func() error { return r.Broker.Start(ctx) })
	case PauseBroker:
		return inTurn(r.Broker.Pause, over, func() error { return r.Broker.Resume(ctx) })
	case Rollback:
		var older Copy
		copied := func() (err error) { older, err = r.Broker.Copy(ctx); return err }
		return inTurn(copied, over, func() error { return r.Broker.Rollback(ctx, older) })
	case Delete:
		return r.Broker.DeleteStream(ctx)
	case Revoke:
		r.API.Sim.RevokeTokens()
		return nil
	case Refuse:
		d := r.API.door()
		d.Down(ctx)
		return inTurn(over, func() error { return d.Up(ctx) })
	case FaultAPI:
		defer r.API.Sim.Fault(s.Fault)()
		return over()
	}
	return fmt.Errorf("%q is nothing that can be done", s.Act)
}

func inTurn(steps ...func() error) error {
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
