package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/harness/natsserver"
)

// Inject executes a plan, whose times count from now, and then waits until the length is
// over. When it returns without an error every fault has ended, though the bridges may not
// have recovered yet.
func (r *Rig) Inject(ctx context.Context, p Plan, length time.Duration) error {
	start := time.Now()
	const broker, api = -1, -2 // lanes; a bridge's is its index
	lanes := map[int]Plan{}
	for _, s := range p {
		lane := api
		switch {
		case s.ofBridge():
			lane = s.Bridge
		case s.Act == KillBroker || s.Act == StopBroker || s.Act == PauseBroker || s.Act == Rollback || s.Act == Delete:
			lane = broker
		}
		lanes[lane] = append(lanes[lane], s)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, lane := range lanes {
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

// until waits until an instant or until the context is cancelled.
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

// step executes one step of a plan.
func (r *Rig) step(ctx context.Context, s Step) error {
	over := func() error { return until(ctx, time.Now().Add(s.For)) }
	if s.ofBridge() {
		return r.stepOfBridge(ctx, s, over)
	}
	switch s.Act {
	case KillBroker:
		return inTurn(r.Broker.Kill, over, func() error { return r.Broker.Start(ctx) })
	case StopBroker:
		return inTurn(func() error { return r.Broker.Stop(ctx) }, over, func() error { return r.Broker.Start(ctx) })
	case PauseBroker:
		return inTurn(r.Broker.Pause, over, func() error { return r.Broker.Resume(ctx) })
	case Rollback:
		var older natsserver.Copy
		copied := func() (err error) { older, err = r.Broker.Copy(ctx); return err }
		return inTurn(copied, over, func() error { return r.Broker.Rollback(ctx, older) })
	case Delete:
		return r.Broker.DeleteStream(ctx)
	case Revoke:
		r.API.Sim.RevokeTokens()
		return nil
	case Refuse:
		return r.refuse(ctx, over)
	case Gateway:
		r.API.Front(front.Page(s.Fault.Status))
		defer r.API.Front(nil)
		return over()
	case FaultAPI:
		defer r.API.Sim.Fault(s.Fault)()
		return over()
	}
	return fmt.Errorf("unknown act %q", s.Act)
}

// stepOfBridge executes a step that concerns one bridge.
func (r *Rig) stepOfBridge(ctx context.Context, s Step, over func() error) error {
	b, err := r.bridge(ctx, s)
	if err != nil {
		return err
	}
	start := func() error { return b.Start(ctx) }
	stop := func() error { _, err := b.Stop(ctx); return err } // Report checks the status
	switch s.Act {
	case KillBridge:
		return inTurn(b.Kill, over, start)
	case StopBridge:
		return inTurn(stop, over, start)
	case PauseBridge:
		return inTurn(b.Pause, over, b.Resume)
	case Join:
		return start()
	case Leave:
		return stop()
	case Lose:
		return b.Kill()
	}
	if b.o.Link == nil {
		return errors.New("the rig has no links")
	}
	defer b.o.Link.Restore()
	if s.Act == ResetLink {
		b.o.Link.Reset()
	} else {
		b.o.Link.Drop()
	}
	return over()
}

// bridge returns a step's bridge. A join adds it if it does not exist.
func (r *Rig) bridge(ctx context.Context, s Step) (*Bridge, error) {
	for {
		all := r.Bridges()
		if s.Bridge < len(all) {
			return all[s.Bridge], nil
		}
		if s.Act != Join {
			return nil, fmt.Errorf("there is no bridge %d", s.Bridge)
		}
		if _, err := r.Add(ctx); err != nil {
			return nil, err
		}
	}
}

// refuse makes the API refuse the connections of all bridges.
func (r *Rig) refuse(ctx context.Context, over func() error) error {
	doors := r.API.Doors()
	for _, d := range doors {
		d.Down(ctx)
	}
	if err := over(); err != nil {
		return err
	}
	for _, d := range doors {
		if err := d.Up(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inTurn calls functions until one returns an error.
func inTurn(steps ...func() error) error {
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
