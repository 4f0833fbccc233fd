package harness_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/harness"
)

// TestPlan checks that a seed always yields the same faults, and another seed other ones.
func TestPlan(t *testing.T) {
	mix := harness.Mix{Bridge: true, Broker: true, API: true, Loss: true}
	once, again, other := harness.NewPlan(1, time.Hour, mix), harness.NewPlan(1, time.Hour, mix), harness.NewPlan(2, time.Hour, mix)
	if diff := cmp.Diff(once, again); diff != "" {
		t.Errorf("same seed:\n%s", diff)
	}
	if cmp.Equal(once, other) {
		t.Error("other seed, same plan")
	}
	n := once.Counts()
	for _, act := range []harness.Act{
		harness.KillBridge, harness.StopBridge, harness.PauseBridge, harness.KillBroker, harness.StopBroker, harness.PauseBroker,
		harness.Rollback, harness.Delete, harness.Revoke, harness.Refuse,
	} {
		if n[string(act)] == 0 {
			t.Errorf("no step of an hour is %q", act)
		}
	}
}

// TestPlanOfSeveral checks that every bridge has faults of its own, with those of links and
// joins if the mix has them.
func TestPlanOfSeveral(t *testing.T) {
	p := harness.NewPlan(1, time.Hour, harness.Mix{Bridge: true, Bridges: 3, Links: true, Joins: true})
	n := p.Counts()
	for _, act := range []harness.Act{
		harness.KillBridge, harness.StopBridge, harness.PauseBridge, harness.DropLink, harness.ResetLink, harness.Join, harness.Leave, harness.Lose,
	} {
		if n[string(act)] == 0 {
			t.Errorf("no step of an hour is %q", act)
		}
	}
	there := map[int]bool{0: true, 1: true, 2: true}
	for _, s := range p {
		switch {
		case s.Act == harness.Join && there[s.Bridge]:
			t.Errorf("%s: it exists", s)
		case s.Act != harness.Join && !there[s.Bridge]:
			t.Errorf("%s: it is not there", s)
		case s.Act != harness.Join && s.Act != harness.Leave && s.Act != harness.Lose && s.Bridge > 2:
			t.Errorf("%s: it only joins and leaves", s)
		}
		there[s.Bridge] = s.Act != harness.Leave && s.Act != harness.Lose
	}
	if !there[0] || !there[1] || !there[2] {
		t.Error("one of those that were there at first left")
	}
}

// TestChanges checks that the group is never empty and never too large.
func TestChanges(t *testing.T) {
	for seed := range uint64(200) {
		there := map[int]bool{0: true, 1: true, 2: true}
		changes := harness.NewChanges(seed, 3, 4, 10, 2*time.Minute)
		if len(changes) != 10 {
			t.Fatalf("seed %d: %d changes, want 10", seed, len(changes))
		}
		var at time.Duration
		for _, s := range changes {
			if s.At < at || s.At >= 2*time.Minute {
				t.Errorf("seed %d: %s is out of its time", seed, s)
			}
			at = s.At
			if there[s.Bridge] == (s.Act == harness.Join) {
				t.Errorf("seed %d: %s: there is %v", seed, s, there)
			}
			if there[s.Bridge] = true; s.Act != harness.Join {
				delete(there, s.Bridge)
			}
			if len(there) < 1 || len(there) > 4 {
				t.Errorf("seed %d: %d bridges after %s", seed, len(there), s)
			}
		}
	}
}
