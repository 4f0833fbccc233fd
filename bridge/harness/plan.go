package harness

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"plaspy-bridge/bridge/sim"
)

// Act is something that is done to the rig.
type Act string

// The acts. Every one of them ends by itself: what it breaks is whole again
// after Step.For.
const (
	KillBridge  Act = "kill bridge"  // kill -9, and a start after For
	StopBridge  Act = "stop bridge"  // SIGTERM, and a start after For
	PauseBridge Act = "pause bridge" // SIGSTOP, SIGCONT after For

	KillBroker  Act = "kill broker"
	StopBroker  Act = "stop broker"
	PauseBroker Act = "pause broker"
	Rollback    Act = "roll broker back" // to a copy of its store that is For old
	Delete      Act = "delete stream"

	Revoke   Act = "revoke tokens"
	Refuse   Act = "API refuses connections"
	FaultAPI Act = "API fault"
)

// Step is one fault.
type Step struct {
	At    time.Duration // after the start
	Act   Act
	For   time.Duration
	Fault sim.Fault // of FaultAPI
}

// String tells the step in words.
func (s Step) String() string {
	text := fmt.Sprintf("%6.1fs %s for %s", s.At.Seconds(), s.Act, s.For.Round(time.Millisecond))
	if s.Act == FaultAPI {
		text += fmt.Sprintf(" (%s %d at %.0f%%)", s.Fault.Kind, s.Fault.Status, 100*s.Fault.Probability)
	}
	return text
}

// Plan is a schedule of faults, in the order of their time.
type Plan []Step

// Mix says what a plan is made of.
type Mix struct {
	Bridge, Broker, API bool
	Loss                bool // the broker also loses what it has acknowledged
	SparePosts          bool // what is posted, and asked about a range, is not failed
}

// NewPlan makes a plan of a length from a seed. Steps of the bridge follow each
// other, and so do those of the broker and of the API; those of different ones
// overlap as it happens.
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
	lane(m.Bridge, 3*time.Second, 9*time.Second, func() Step { return bridgeStep(r) })
	lane(m.Broker, 6*time.Second, 20*time.Second, func() Step { return brokerStep(r, m.Loss) })
	lane(m.API, time.Second, 6*time.Second, func() Step { return apiStep(r, m.SparePosts) })
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
	switch r.IntN(12) {
	case 0, 1:
		return Step{Act: Revoke}
	case 2:
		return Step{Act: Refuse, For: length}
	}
	kinds := []sim.Fault{
		{Kind: sim.Status, Status: 500}, {Kind: sim.Status, Status: 503}, {Kind: sim.Status, Status: 503, RetryAfter: time.Second},
		{Kind: sim.Throttle, RetryAfter: time.Second}, {Kind: sim.Throttle}, {Kind: sim.Reset}, {Kind: sim.Hang}, {Kind: sim.HTML},
		{Kind: sim.Truncated}, {Kind: sim.CutOff}, {Kind: sim.Empty}, {Kind: sim.Garbage}, {Kind: sim.Unauthorized},
		{Kind: sim.Slow, Delay: 300 * time.Millisecond, Tail: 200 * time.Millisecond},
	}
	f := kinds[r.IntN(len(kinds))]
	f.Probability = []float64{0.05, 0.3, 1}[r.IntN(3)]
	if sparePosts {
		f.Endpoint = "lastLocation"
	}
	return Step{Act: FaultAPI, For: length, Fault: f}
}

// Counts tells how many of each act there are.
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

func counted(n map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, n[name]))
	}
	return strings.Join(parts, ", ")
}
