package replica

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/replica/clock"
	"plaspy-bridge/bridge/replica/plan"
)

// ignore is a change that takes up nothing.
func ignore(Assignment) (none InFlight) { return none }

// TestLateEcho: the watch shows a replica's own plans later than it knows them.
func TestLateEcho(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600})
	g.change = ignore
	life := newMembership(t.Context(), g, nil, "k")
	one, two := plan.Plan{Epoch: 1, Limit: 600}, plan.Plan{Epoch: 2, Limit: 600, Seats: []plan.Seat{{Key: "k", Name: "a", Slots: 600}}}
	life.obey(one, 10)
	life.obey(two, 12)
	life.obey(one, 10)
	life.obey(two, 12)
	if life.s.lost != nil || life.plan.Epoch != 2 {
		t.Errorf("at plan %d, lost: %v", life.plan.Epoch, life.s.lost)
	}
	life.obey(one, 13)
	if !errors.Is(life.s.lost, errStateLost) {
		t.Errorf("a plan that went back: lost: %v", life.s.lost)
	}
}

// FuzzEntries checks that with any content of the bucket a replica neither panics nor
// takes more devices or budget than there are.
func FuzzEntries(f *testing.F) {
	good, _ := json.Marshal(plan.Plan{Epoch: 3, Limit: 600, Seats: []plan.Seat{{Key: "k", Name: "a", Slots: 300}, {Key: "l", Name: "b", Slots: 300}}})
	f.Add(good, []byte(`{"id":"b","beat":1,"ack":3}`))
	f.Add([]byte(`{"epoch":1,"seats":[{"key":"k","slots":-5},{"key":"k","slots":9}]}`), []byte(`{"load":-1,"limit":-7}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var p plan.Plan
		var m record
		if json.Unmarshal(a, &p) != nil || json.Unmarshal(b, &m) != nil || !p.Valid() {
			return
		}
		g := New(Options{ID: "a", Limit: 600})
		g.change = func(a Assignment) (none InFlight) {
			if a.Share < 0 || a.Share > 1 {
				t.Errorf("share %v", a.Share)
			}
			a.Owned("dev")
			return none
		}
		life := newMembership(t.Context(), g, nil, "k")
		life.s.now = clock.Moment{}
		life.members.byKey["l"] = &member{key: "l", record: m, revision: 2}
		life.obey(p, 1)
		life.own.acked = p.Epoch
		life.agree()
		life.report()
		s := plan.Situation{Plan: life.plan.Plan, Gone: life.members.gone, Committed: true, Idle: time.Hour, Limit: 600, Living: life.coordinator.living()}
		if next, _, ok := s.Draft(); ok && next.Epoch <= p.Epoch && p.Epoch < 1<<62 {
			t.Errorf("plan %d after %d", next.Epoch, p.Epoch)
		}
	})
}

// TestOtherPlan: a plan of a known epoch is the known plan, or the store went
// back.
func TestOtherPlan(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600})
	g.change = ignore
	life := newMembership(t.Context(), g, nil, "k")
	mine := plan.Plan{Epoch: 5, Limit: 600, Seats: []plan.Seat{{Key: "k", Name: "a", Slots: 600}}}
	life.obey(mine, 10)
	life.obey(mine, 11)
	if life.s.lost != nil {
		t.Errorf("the same plan, written again: lost: %v", life.s.lost)
	}
	life.obey(plan.Plan{Epoch: 5, Limit: 600, Seats: []plan.Seat{{Key: "l", Name: "b", Slots: 600}}}, 12)
	if !errors.Is(life.s.lost, errStateLost) {
		t.Errorf("another plan of the same epoch: lost: %v", life.s.lost)
	}
}

// TestPlanDuringStop: a replica that stops takes up nothing that a late plan assigns.
func TestPlanDuringStop(t *testing.T) {
	var owned bool
	g := New(Options{ID: "a", Limit: 600})
	g.change = func(a Assignment) (none InFlight) {
		owned = a.Owned != nil && a.Owned("dev")
		return none
	}
	life := newMembership(t.Context(), g, nil, "k")
	life.obey(plan.Plan{Epoch: 5, Limit: 600, Seats: []plan.Seat{{Key: "k", Name: "a", Slots: 600}}}, 10)
	life.own.acked = 5
	life.agree()
	life.report()
	if !owned {
		t.Fatal("the device is not owned")
	}
	g.stopped.Store(true)
	g.surrender()
	life.obey(plan.Plan{Epoch: 6, Limit: 600, Seats: []plan.Seat{{Key: "k", Name: "a", Slots: 500}}}, 11)
	if owned {
		t.Error("the device is owned again")
	}
}

// TestWriterOfAnUnreadablePlan: a plan is written again if its key holds another value,
// by the first live member that knows it, and by no replica that knows only an earlier
// one, or none.
func TestWriterOfAnUnreadablePlan(t *testing.T) {
	mine := plan.Plan{Epoch: 9, Limit: 600, Seats: []plan.Seat{{Key: "j", Name: "j", Slots: 200}, {Key: "k", Name: "k", Slots: 200}, {Key: "l", Name: "l", Slots: 200}}}
	for _, c := range []struct {
		name       string
		unreadable bool
		epoch      uint64 // of the plan that this replica, k, knows
		ack        map[string]uint64
		silent     string
		want       bool
	}{
		{name: "readable", epoch: 9, ack: map[string]uint64{"j": 9, "l": 9}},
		{name: "readable, not acknowledged", epoch: 9, ack: map[string]uint64{"j": 7, "l": 9}},
		{name: "readable, the first one silent", epoch: 9, ack: map[string]uint64{"j": 9, "l": 9}, silent: "j", want: true},
		{name: "the first one knows it", unreadable: true, epoch: 9, ack: map[string]uint64{"j": 9, "l": 9}},
		{name: "the first one does not", unreadable: true, epoch: 9, ack: map[string]uint64{"j": 7, "l": 9}, want: true},
		{name: "known to another member only", unreadable: true, epoch: 8, ack: map[string]uint64{"j": 7, "l": 9}},
		{name: "known to a silent member only", unreadable: true, ack: map[string]uint64{"l": 1}, silent: "l"},
		{name: "known to this one, which has no seat", unreadable: true, epoch: 7, ack: map[string]uint64{"a": 0, "j": 7, "l": 7}, silent: "j l", want: true},
		{name: "known to none", unreadable: true, ack: map[string]uint64{"l": 0}, want: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := New(Options{ID: "k", Limit: 600})
			g.change = ignore
			now := g.clock()
			life := newMembership(t.Context(), g, nil, "k")
			life.s.now = now
			if c.epoch > 0 {
				life.plan.Plan = mine
				life.plan.Epoch = c.epoch
			}
			if c.epoch == 7 {
				life.plan.Seats = []plan.Seat{mine.Seats[0], mine.Seats[2]}
			}
			life.plan.unreadable, life.watch.synced, life.own.revision = c.unreadable, true, 1
			g.lease.Store(&now)
			for key, ack := range c.ack {
				m := life.members.get(key)
				m.record, m.revision, m.heard = record{ID: key, Ack: ack}, 1, now
				if strings.Contains(c.silent, key) {
					m.heard = now.Add(-2 * DefaultLease)
				}
			}
			if got := life.coordinator.coordinates() && !life.coordinator.behind(); got != c.want {
				t.Errorf("writes it: %t, want %t", got, c.want)
			}
		})
	}
}

// TestLostAnswer checks that the watch replaces a lost answer, and that values of an
// earlier watch do not.
func TestLostAnswer(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600})
	g.change = ignore
	life := newMembership(t.Context(), g, nil, "k")
	o := life.own
	o.revision, o.beat = 7, 2
	o.see(8, record{Beat: 2})
	o.wrote(record{Beat: 2}, 0, context.DeadlineExceeded)
	if o.revision != 8 || o.err != nil {
		t.Errorf("at revision %d, %v, want 8 as shown", o.revision, o.err)
	}
	life.watch.own.revision = 0 // another watch, which has shown nothing yet
	o.wrote(record{Beat: 2}, 0, context.DeadlineExceeded)
	if o.revision != 8 || o.err == nil {
		t.Errorf("at revision %d, %v, want 8 and doubt", o.revision, o.err)
	}
}
