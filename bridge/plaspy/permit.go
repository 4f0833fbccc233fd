package plaspy

import (
	"context"
	"sync/atomic"
	"time"
)

// Permit is a slot in the budget for one request. It is for whoever wants to decide what to send only when
// the slot is there. The nil Permit stands for a budget without a limit.
type Permit struct {
	budget       *Budget
	kind         Kind
	slot, before time.Time
	spent        atomic.Bool
}

// Return gives an unused permit back, so that somebody else can have the slot. After a request was sent with
// it, Return does nothing, so it can be deferred.
func (p *Permit) Return() {
	if p == nil || p.spent.Swap(true) {
		return
	}
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	p.budget.giveBack(p)
	p.budget.dispatch(time.Now())
}

// take uses the permit up and reports whether it was good. One that is too old is void: while permits were
// held back, waiting for a token say, their slots have passed, and using them all at once would be a burst.
func (p *Permit) take() bool {
	return p != nil && !p.spent.Swap(true) && time.Since(p.slot) <= permitLife
}

type (
	permitKey struct{}
	kindKey   struct{}
)

// WithPermit makes the one next request under the context use p instead of waiting for the budget.
func WithPermit(ctx context.Context, p *Permit) context.Context {
	if p == nil {
		return ctx
	}
	return context.WithValue(ctx, permitKey{}, p)
}

func permitOf(ctx context.Context) *Permit {
	p, _ := ctx.Value(permitKey{}).(*Permit)
	return p
}

// WithKind makes requests under the context count as k instead of as what their method usually is.
func WithKind(ctx context.Context, k Kind) context.Context {
	return context.WithValue(ctx, kindKey{}, k)
}

// kindOf returns what WithKind set, or else the call's own kind, or else otherwise.
func kindOf(ctx context.Context, otherwise Kind) Kind {
	if k, ok := ctx.Value(kindKey{}).(Kind); ok {
		return k
	}
	if c := callOf(ctx); c != nil {
		return c.kind
	}
	return otherwise
}
