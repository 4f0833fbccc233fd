package harness

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"plaspy-bridge/bridge/sim/fault"
)

// Act is a kind of fault, or another change of the rig.
type Act string

// The acts. A fault ends after Step.For. After Leave and Lose a bridge is away until it
// joins again.
const (
	KillBridge  Act = "kill bridge"  // kill -9, and a start after For
	StopBridge  Act = "stop bridge"  // SIGTERM, and a start after For
	PauseBridge Act = "pause bridge" // SIGSTOP, SIGCONT after For
	DropLink    Act = "drop link"    // between bridge and broker, see [network.Link.Drop]; requires Options.Linked
	ResetLink   Act = "reset link"   // likewise, see [network.Link.Reset]

	Join  Act = "join"  // a further bridge starts, or one that is away
	Leave Act = "leave" // SIGTERM
	Lose  Act = "lose"  // kill -9

	KillBroker  Act = "kill broker"
	StopBroker  Act = "stop broker"
	PauseBroker Act = "pause broker"
	Rollback    Act = "roll broker back" // to a copy of its store that is For old
	Delete      Act = "delete stream"

	Revoke   Act = "revoke tokens"
	Refuse   Act = "API refuses connections"
	FaultAPI Act = "API fault"
	Gateway  Act = "gateway's page" // [front.Page] with the status of Step.Fault
)

// Step is one fault.
type Step struct {
	At     time.Duration // after the start
	Act    Act
	Bridge int // an index of [Rig.Bridges], for acts on one bridge
	For    time.Duration
	Fault  fault.Rule // of FaultAPI and Gateway
}

// ofBridge reports whether the step concerns one bridge.
func (s Step) ofBridge() bool {
	switch s.Act {
	case KillBridge, StopBridge, PauseBridge, DropLink, ResetLink, Join, Leave, Lose:
		return true
	}
	return false
}

// String returns the step in words.
func (s Step) String() string {
	text := fmt.Sprintf("%6.1fs %s for %s", s.At.Seconds(), s.Act, s.For.Round(time.Millisecond))
	if s.ofBridge() {
		text += fmt.Sprintf(" (bridge %d)", s.Bridge)
	}
	if s.Act == Gateway {
		text += fmt.Sprintf(" (%d)", s.Fault.Status)
	}
	if s.Act == FaultAPI {
		text += fmt.Sprintf(" (%s %d at %.0f%%)", s.Fault.Kind, s.Fault.Status, 100*s.Fault.Probability)
	}
	return text
}

// Plan is a schedule of faults, in the order of their time.
type Plan []Step

// Mix selects the faults of a plan.
type Mix struct {
	Bridge, Broker, API bool
	Bridges             int  // number at the start, each with faults of its own; 0 means 1
	Links               bool // the bridges' links are cut too
	Joins               bool // further bridges join and leave again
	Loss                bool // the broker also loses acknowledged messages
	SparePosts          bool // posts and requests for a range do not fail
}

// NewPlan makes a plan of a length from a seed. The steps of one bridge do not overlap,
// and neither do those of the broker or of the API. Steps of different parts may overlap.
func NewPlan(seed uint64, length time.Duration, m Mix) Plan {
	r := rand.New(rand.NewPCG(seed, 0x6861726e657373))
	var p Plan
	lane := func(on bool, lo, hi time.Duration, step func() Step) {
		if !on {
			return
		}
		for at := between(r, lo, hi); at < length; {
			s := step()
			s.At = at
			p = append(p, s)
			at += s.For + between(r, lo, hi)
		}
	}
	bridges := max(m.Bridges, 1)
	for n := range bridges {
		// As many faults as with one bridge, divided among all.
		lo, hi := 3*time.Second*time.Duration(bridges), 9*time.Second*time.Duration(bridges)
		lane(m.Bridge, lo, hi, func() Step {
			s := bridgeStep(r)
			if m.Links && r.IntN(3) == 0 {
				s = linkStep(r)
			}
			s.Bridge = n
			return s
		})
	}
	lane(m.Broker, 6*time.Second, 20*time.Second, func() Step { return brokerStep(r, m.Loss) })
	lane(m.API, time.Second, 6*time.Second, func() Step { return apiStep(r, m.SparePosts) })
	there, next := -1, bridges // the bridge that joined, and the index of the next one
	lane(m.Joins, 5*time.Second, 20*time.Second, func() Step {
		if there < 0 {
			if there = next; r.IntN(2) == 0 && next > bridges { // a bridge that was there before
				there = bridges + r.IntN(next-bridges)
			}
			next = max(next, there+1)
			return Step{Act: Join, Bridge: there}
		}
		s := Step{Act: [...]Act{Leave, Lose}[r.IntN(2)], Bridge: there}
		there = -1
		return s
	})
	slices.SortStableFunc(p, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return p
}

func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

func bridgeStep(r *rand.Rand) Step {
	switch n := r.IntN(10); {
	case n < 5:
		s := Step{Act: KillBridge}
		if r.IntN(3) == 0 {
			s.For = between(r, 0, 3*time.Second)
		}
		return s
	case n < 7:
		return Step{Act: StopBridge, For: between(r, 0, 2*time.Second)}
	case n < 9:
		return Step{Act: PauseBridge, For: between(r, 100*time.Millisecond, 4*time.Second)}
	default: // past the request timeout
		return Step{Act: PauseBridge, For: between(r, 12*time.Second, 15*time.Second)}
	}
}

func linkStep(r *rand.Rand) Step {
	s := Step{Act: [...]Act{DropLink, ResetLink}[r.IntN(2)]}
	if s.For = between(r, 100*time.Millisecond, 4*time.Second); r.IntN(3) == 0 { // past the lease
		s.For = between(r, 8*time.Second, 15*time.Second)
	}
	return s
}

// NewChanges makes a plan of joins and leaves of a group that begins with a number of
// bridges. They leave by SIGKILL and SIGTERM in turn. At least one bridge is always there,
// and at most most.
func NewChanges(seed uint64, bridges, most, changes int, length time.Duration) Plan {
	r := rand.New(rand.NewPCG(seed, 0x6368616e676573))
	var there, away []int
	for n := range bridges {
		there = append(there, n)
	}
	next, ends := bridges, 0
	var p Plan
	every := length / time.Duration(changes)
	for i := range changes {
		s := Step{At: time.Duration(i)*every + between(r, 0, every)}
		switch coin := r.IntN(3); {
		case len(there) > 1 && (coin > 0 || len(there) == most):
			at := r.IntN(len(there))
			s.Act, s.Bridge = [...]Act{Lose, Leave}[ends%2], there[at]
			ends++
			there, away = slices.Delete(there, at, at+1), append(away, s.Bridge)
		case len(away) > 0 && r.IntN(2) == 0:
			at := r.IntN(len(away))
			s.Act, s.Bridge = Join, away[at]
			there, away = append(there, s.Bridge), slices.Delete(away, at, at+1)
		default:
			s.Act, s.Bridge = Join, next
			there = append(there, next)
			next++
		}
		p = append(p, s)
	}
	return p
}

func brokerStep(r *rand.Rand, loss bool) Step {
	switch n := r.IntN(12); {
	case n < 2 && loss:
		return Step{Act: Rollback, For: between(r, 500*time.Millisecond, 8*time.Second)}
	case n < 3 && loss:
		return Step{Act: Delete}
	case n < 7:
		return Step{Act: KillBroker, For: between(r, 0, 4*time.Second)}
	case n < 8:
		return Step{Act: KillBroker, For: between(r, 8*time.Second, 12*time.Second)}
	case n < 10:
		return Step{Act: StopBroker, For: between(r, 0, 3*time.Second)}
	default:
		return Step{Act: PauseBroker, For: between(r, 200*time.Millisecond, 3*time.Second)}
	}
}

func apiStep(r *rand.Rand, sparePosts bool) Step {
	length := between(r, 300*time.Millisecond, 4*time.Second)
	switch n := r.IntN(13); {
	case n == 12 && !sparePosts:
		return Step{Act: Gateway, For: length, Fault: fault.Rule{Status: []int{200, 302, 403, 404, 503}[r.IntN(5)]}}
	case n < 2:
		return Step{Act: Revoke}
	case n == 2:
		return Step{Act: Refuse, For: length}
	}
	kinds := []fault.Rule{
		{Kind: fault.Status, Status: 500}, {Kind: fault.Status, Status: 503}, {Kind: fault.Status, Status: 503, RetryAfter: time.Second},
		{Kind: fault.Throttle, RetryAfter: time.Second}, {Kind: fault.Throttle}, {Kind: fault.Reset}, {Kind: fault.Hang}, {Kind: fault.HTML},
		{Kind: fault.Truncated}, {Kind: fault.CutOff}, {Kind: fault.Empty}, {Kind: fault.Garbage}, {Kind: fault.Unauthorized},
		{Kind: fault.Slow, Delay: 300 * time.Millisecond, Tail: 200 * time.Millisecond},
	}
	f := kinds[r.IntN(len(kinds))]
	f.Probability = []float64{0.05, 0.3, 1}[r.IntN(3)]
	if sparePosts {
		f.Endpoint = "lastLocation"
	}
	return Step{Act: FaultAPI, For: length, Fault: f}
}

// Counts returns the number of steps by their act.
func (p Plan) Counts() map[string]int {
	n := map[string]int{}
	for _, s := range p {
		name := string(s.Act)
		if s.Act == FaultAPI {
			name = "API " + string(s.Fault.Kind)
		}
		n[name]++
	}
	return n
}
