package replica

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// TestLateEcho: the watch shows a replica's own plans later than it knows them.
func TestLateEcho(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600, OnChange: func(Assignment) (none InFlight) { return none }})
	life := &membership{g: g, key: "k", members: make(map[string]*member)}
	one, two := plan{Epoch: 1, Limit: 600}, plan{Epoch: 2, Limit: 600, Seats: []seat{{"k", "a", 600}}}
	life.obey(one, 10)
	life.obey(two, 12)
	life.obey(one, 10)
	life.obey(two, 12)
	if life.lost != nil || life.plan.Epoch != 2 {
		t.Errorf("at plan %d, lost: %v", life.plan.Epoch, life.lost)
	}
	life.obey(one, 13)
	if !errors.Is(life.lost, errStateLost) {
		t.Errorf("a plan that went back: lost: %v", life.lost)
	}
}

// FuzzEntries: whatever stands in the bucket, a replica neither panics nor takes
// more than there is.
func FuzzEntries(f *testing.F) {
	good, _ := json.Marshal(plan{Epoch: 3, Limit: 600, Seats: []seat{{"k", "a", 300}, {"l", "b", 300}}})
	f.Add(good, []byte(`{"id":"b","beat":1,"ack":3}`))
	f.Add([]byte(`{"epoch":1,"seats":[{"key":"k","slots":-5},{"key":"k","slots":9}]}`), []byte(`{"load":-1,"limit":-7}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var p plan
		var m record
		if json.Unmarshal(a, &p) != nil || json.Unmarshal(b, &m) != nil || !p.valid() {
			return
		}
		g := New(Options{ID: "a", Limit: 600, OnChange: func(a Assignment) (none InFlight) {
			if a.Share < 0 || a.Share > 1 {
				t.Errorf("share %v", a.Share)
			}
			a.Owned("dev")
			return none
		}})
		life := &membership{g: g, key: "k", members: map[string]*member{"l": {key: "l", record: m, revision: 2}}}
		life.obey(p, 1)
		life.own.acked = p.Epoch
		life.agree()
		life.report()
		s := situation{plan: life.plan.plan, gone: func(key string) bool { return gone(life.members, key) }, committed: true, idle: time.Hour, limit: 600, living: living(life)}
		if next, _, ok := s.draft(); ok && next.Epoch <= p.Epoch && p.Epoch < 1<<62 {
			t.Errorf("plan %d after %d", next.Epoch, p.Epoch)
		}
	})
}

// TestOtherPlan: a plan of a known epoch is the known plan, or the store went
// back.
func TestOtherPlan(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600, OnChange: func(Assignment) (none InFlight) { return none }})
	life := &membership{g: g, key: "k", members: make(map[string]*member)}
	mine := plan{Epoch: 5, Limit: 600, Seats: []seat{{"k", "a", 600}}}
	life.obey(mine, 10)
	life.obey(mine, 11)
	if life.lost != nil {
		t.Errorf("the same plan, written again: lost: %v", life.lost)
	}
	life.obey(plan{Epoch: 5, Limit: 600, Seats: []seat{{"l", "b", 600}}}, 12)
	if !errors.Is(life.lost, errStateLost) {
		t.Errorf("another plan of the same epoch: lost: %v", life.lost)
	}
}

// TestLostAnswer: an answer that was lost is made up for by what the watch has
// shown, and by nothing that an earlier watch had.
func TestLostAnswer(t *testing.T) {
	g := New(Options{ID: "a", Limit: 600, OnChange: func(Assignment) (none InFlight) { return none }})
	life := &membership{g: g, key: "k", members: make(map[string]*member), now: g.clock()}
	o := &life.own
	o.revision, o.beat = 7, 2
	life.seeOwn(8, record{Beat: 2})
	life.wrote(record{Beat: 2}, 0, context.DeadlineExceeded)
	if o.revision != 8 || o.err != nil {
		t.Errorf("at revision %d, %v, want 8 as shown", o.revision, o.err)
	}
	o.shown.revision = 0 // another watch, which has shown nothing yet
	life.wrote(record{Beat: 2}, 0, context.DeadlineExceeded)
	if o.revision != 8 || o.err == nil {
		t.Errorf("at revision %d, %v, want 8 and doubt", o.revision, o.err)
	}
}
