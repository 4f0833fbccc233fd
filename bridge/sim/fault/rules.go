package fault

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Rules are the rules that are switched on, in order. They are safe for
// concurrent use.
type Rules struct {
	some atomic.Bool // whether there are any, for requests without a fault

	mu   sync.Mutex
	rng  *rand.Rand
	last uint64 // id
	list []*armed
}

// armed is a rule that is switched on.
type armed struct {
	rule Rule
	id   uint64
	left int // of rule.Times
}

// NewRules returns a set without rules. The same seed gives the same choices.
func NewRules(seed uint64) *Rules {
	return &Rules{rng: rand.New(rand.NewPCG(seed, 0x0fa017))}
}

// Any reports whether any rule is switched on.
func (rs *Rules) Any() bool { return rs.some.Load() }

// Add switches a rule on, behind those that are on already, and returns its id
// for Remove.
func (rs *Rules) Add(f Rule) (id uint64) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.last++
	rs.list = append(rs.list, &armed{f, rs.last, f.Times})
	rs.some.Store(true)
	return rs.last
}

// Remove switches a rule off. A second time has no effect.
func (rs *Rules) Remove(id uint64) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.list = slices.DeleteFunc(rs.list, func(a *armed) bool { return a.id == id })
	rs.some.Store(len(rs.list) > 0)
}

// Clear switches all rules off. Requests that hang go on hanging.
func (rs *Rules) Clear() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.list = nil
	rs.some.Store(false)
}

// Pick returns the sum of the delays of a request, and the first other rule
// that applies to it, nil if none does.
func (rs *Rules) Pick(r Request) (delay time.Duration, f *Rule) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, a := range rs.list {
		if !a.rule.applies(r) || a.rule.Probability > 0 && rs.rng.Float64() >= a.rule.Probability {
			continue
		}
		if a.rule.Kind != Slow && f != nil {
			continue
		}
		if a.rule.Times > 0 {
			if a.left == 0 {
				continue
			}
			a.left--
		}
		if a.rule.Kind == Slow {
			delay += a.rule.Delay + time.Duration(float64(a.rule.Tail)*rs.rng.ExpFloat64())
			continue
		}
		picked := a.rule
		f = &picked
	}
	return delay, f
}
