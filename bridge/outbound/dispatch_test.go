package outbound

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestSlotsLengthenWithTheRate(t *testing.T) {
	var s rest
	for _, step := range []struct {
		polls int
		want  time.Duration
	}{{0, shortRest}, {1, shortRest}, {2, 4 * time.Millisecond}, {5, 8 * time.Millisecond}, {9, longRest}, {99, longRest}, {1, longRest / 2}, {0, 4 * time.Millisecond}, {0, shortRest}, {0, shortRest}} {
		s.polls = step.polls
		s.adapt()
		if s.length != step.want {
			t.Fatalf("%v after %d polls, want %v", s.length, step.polls, step.want)
		}
		if s.polls != 0 {
			t.Fatal("the number of polls is not reset")
		}
	}
}

// TestSleep: the dispatcher sleeps until something is due, a signal ends that early,
// and neither cuts the rest short.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timer := time.NewTimer(0)
		<-timer.C
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		const ms = time.Millisecond
		for _, tc := range []struct {
			name               string
			ctx                context.Context
			due, signal, least time.Duration // 0: never, not at all
			want               time.Duration
		}{
			{"until the next device", t.Context(), 100 * ms, 0, 2 * ms, 100 * ms},
			{"a device is overdue", t.Context(), -time.Second, 0, 2 * ms, 2 * ms},
			{"nothing is ever due", t.Context(), 0, 0, 2 * ms, longestSleep},
			{"nothing is due for long", t.Context(), time.Hour, 0, 2 * ms, longestSleep},
			{"a signal after the rest", t.Context(), 100 * ms, 30 * ms, 16 * ms, 30 * ms},
			{"a signal within the rest", t.Context(), 100 * ms, 3 * ms, 16 * ms, 16 * ms},
			{"the end", cancelled, 100 * ms, 0, 16 * ms, 0},
		} {
			wake := make(chan struct{}, 1)
			if tc.signal > 0 {
				time.AfterFunc(tc.signal, func() { nudge(wake) })
			}
			var at time.Time
			began := time.Now()
			if tc.due != 0 {
				at = began.Add(tc.due)
			}
			sleep(tc.ctx, timer, wake, at, tc.least)
			if got := time.Since(began); got != tc.want {
				t.Errorf("%s: slept %v, want %v", tc.name, got, tc.want)
			}
		}
	})
}

// countedState counts the readings of a state without devices.
type countedState struct {
	largeState
	readings *atomic.Int64
}

// State implements [State].
func (c countedState) State(context.Context, bool, func(publisher.Stored)) (publisher.Mark, error) {
	c.readings.Add(1)
	return publisher.Mark{}, nil
}

func TestStateIsReadOnceAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var readings atomic.Int64
		var assigned atomic.Bool
		parts := parts(newFakeAPI(), nil, schedule.NewFixed(time.Minute))
		parts.State, parts.Assigned = countedState{readings: &readings}, assigned.Load
		parts.Connected = func() bool { return true }
		p := New(options(), parts)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Run(ctx)
		}()
		time.Sleep(time.Second)
		if n := readings.Load(); n != 0 {
			t.Errorf("%d readings before the first assignment", n)
		}
		p.Reassign(true)
		assigned.Store(true)
		time.Sleep(time.Second)
		if n := readings.Load(); n != 1 {
			t.Errorf("%d readings after the first assignment, want 1", n)
		}
		// Of a replica that has ended, this one gives up its part of the old division
		// before it gets its part of the new one.
		for i, gained := range []bool{false, true} {
			p.Reassign(gained)
			time.Sleep(time.Second)
			if n, want := readings.Load(), int64(1+i); n != want {
				t.Errorf("%d readings, want %d, after an assignment with devices gained: %t", n, want, gained)
			}
		}
		cancel()
		<-ended
	})
}

// TestGainedDevicesWaitForTheState: when devices come into the schedule, the state is
// stale already.
func TestGainedDevicesWaitForTheState(t *testing.T) {
	var p *Pool
	added := 0
	o := options()
	o.SetDevices = func(int) {
		added++
		if !p.state.stale() {
			t.Error("devices were added, and polls may begin")
		}
	}
	p = New(o, parts(newFakeAPI(), nil, schedule.NewFixed(time.Minute)))
	p.state.loaded.Store(p.state.asked.Load())
	p.Reassign(true)
	if added == 0 {
		t.Error("no devices were added")
	}
}

// TestProbesGoRound: while the API is down, probes go to one device after the other, so that a device that always
// fails does not keep the others from showing that the API is back.
func TestProbesGoRound(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b", "c", "d")
	for _, id := range []string{"a", "b", "c", "d"} {
		api.next[id] = func(int) (string, error) {
			return "", &plaspy.Error{Endpoint: "last_location", Status: 500, Message: "uncontrolled error"}
		}
	}
	o := options()
	o.Workers = 1
	r := newRigWith(t, natstest.Start(t), api, api, o, func(_ *rig, p *Parts) {
		p.Circuit, p.Schedule = new(probing), schedule.NewFixed(time.Second)
	})
	for _, id := range []string{"a", "b", "c", "d"} {
		r.polls(id, 3)
	}
}
