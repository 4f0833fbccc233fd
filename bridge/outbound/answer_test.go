package outbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// heldAnswer is a rig with device a, about which the API holds an answer back.
type heldAnswer struct {
	*rig

	show    chan<- string
	waiting <-chan struct{} // closed when the answer is held
	answer  chan<- struct{} // lets the answer go when it is closed
}

// holdAnswer has device a show its first location, and then those that the test
// sends. The answer with the location held waits; the device then shows the location
// next. The parts may be changed before the first poll.
func holdAnswer(t *testing.T, held, next string, with func(*rig, *Parts)) heldAnswer {
	t.Helper()
	api := newFakeAPI("a")
	show, waiting, answer := make(chan string, 1), make(chan struct{}), make(chan struct{})
	last := at(1, 1)
	api.next["a"] = func(int) (string, error) {
		select {
		case last = <-show:
			if last == held { // only once
				close(waiting)
				<-answer
				show <- next
			}
		default:
		}
		return last, nil
	}
	o := options()
	o.Refresh = time.Hour
	if with == nil {
		with = func(*rig, *Parts) {}
	}
	r := newRigWith(t, natstest.Start(t), api, api, o, with)
	r.until("the first fix", body(`"v":1`))
	return heldAnswer{r, show, waiting, answer}
}

// ends waits for the location with the value v, and checks the events up to it
// without those of devices.
func (r *rig) ends(v int, want []string) {
	r.t.Helper()
	got := r.until("the last fix", body(fmt.Sprintf(`"v":%d`, v)))
	equal(r.t, withoutDevices(summary(got)), want)
}

// publishAsAnother stores a location of device a that another replica saw then.
func (r *rig) publishAsAnother(seen time.Time, location string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"deviceId":"a","observedAt":%q,"location":%s}`, seen.UTC().Format(time.RFC3339Nano), location)
	if _, err := natstest.Own(r.t, r.pub).Publish(r.t.Context(), subjects.Location("a"), []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

// TestAnswerOfAPollDuringWhichItsDeviceMoves makes the API answer a poll when the
// device belongs to another replica, because the shares changed or because the
// process stops. No other replica polls it before the turn has ended, so the answer is
// published, unless the turn was revoked.
func TestAnswerOfAPollDuringWhichItsDeviceMoves(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name           string
		stops, revoked bool
		want           []string
	}{
		{"another share", false, false, []string{"location.a 1", "location.a 2"}},
		{"the process stops", true, false, []string{"location.a 1", "location.a 2"}},
		{"another share, and the turn lasts too long", false, true, []string{"location.a 1"}},
		{"the process stops, and the turn lasts too long", true, true, []string{"location.a 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI("a")
			answer := make(chan struct{})
			api.next["a"] = func(n int) (string, error) {
				if n == 0 {
					return at(1, 1), nil
				}
				<-answer
				return at(2, 2), nil
			}
			r := &rig{t: t, api: api, srv: natstest.Start(t)}
			r.pub = r.srv.Publisher(t, subjects)
			p := parts(api, r.pub, schedule.NewFixed(interval))
			p.Owner = &r.share
			r.pool = New(options(), p)
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { r.pool.Run(ctx) })
			r.until("the first fix", body(`"v":1`))
			natstest.Eventually(t, "a poll waits for its answer", func() bool { return r.polled("a") == 2 })
			if test.stops {
				cancel()
			}
			settled, revoke := r.own(func(string) bool { return false })
			if closed(settled) {
				t.Error("settled before the answer")
			}
			if test.revoked {
				revoke()
			}
			close(answer)
			<-settled
			cancel()
			run.Wait()
			if err := r.pub.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			equal(t, withoutDevices(summary(r.events())), test.want)
		})
	}
}

// TestAnswerOfAPollDuringWhichTheStreamIsLost makes the API answer a poll after the
// broker lost messages, and never show that location again. Nothing newer is in the
// stream, so the answer is published; a newer one of another replica comes first.
func TestAnswerOfAPollDuringWhichTheStreamIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		keep    int  // messages that the broker kept
		noticed bool // before the answer came
		other   bool // another replica has published since
		want    []string
	}{
		{"all lost", 0, false, false, []string{"location.a 3", "location.a 4"}},
		{"all lost, noticed", 0, true, false, []string{"location.a 3", "location.a 4"}},
		{"older copy", 2, false, false, []string{"location.a 1", "location.a 3", "location.a 4"}},
		{"older copy, noticed", 2, true, false, []string{"location.a 1", "location.a 3", "location.a 4"}},
		{"older copy, another replica", 2, false, true, []string{"location.a 1", "location.a other", "location.a 4"}},
		{"older copy, noticed, another replica", 2, true, true, []string{"location.a 1", "location.a other", "location.a 4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := holdAnswer(t, at(3, 3), at(4, 4), nil)
			r.until("its addition", body(`"change":"added"`))
			for range 3 { // the fence is a sequence that the new stream does not reach
				if _, err := natstest.Own(t, r.pub).Publish(t.Context(), "plaspy.device.b", []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
			r.show <- at(2, 2)
			r.until("the second fix", body(`"v":2`))
			r.show <- at(3, 3)
			<-r.waiting
			r.loseStream(test.keep)
			if test.other {
				r.publishAsAnother(time.Now(), at(9, "other"))
			}
			if test.noticed {
				r.pool.Resync()
			}
			close(r.answer)
			r.ends(4, test.want)
		})
	}
}

// TestAnswerAndALateEventOfAnotherReplica makes another replica publish while a poll is
// answered. If it saw its location before, and cannot have polled the device since, the
// answer follows. Otherwise the answer may be the older one, and is dropped.
func TestAnswerAndALateEventOfAnotherReplica(t *testing.T) {
	t.Parallel()
	published, dropped := []string{"location.a 1", "location.a other", "location.a 2", "location.a 3"}, []string{"location.a 1", "location.a other", "location.a 3"}
	moves := func(r *rig) (revoke func()) {
		_, revoke = r.own(func(string) bool { return false })
		return revoke
	}
	for _, test := range []struct {
		name  string
		seen  time.Duration // before the answer, by the clock of the other replica
		until func(r *rig)  // the answer
		want  []string
	}{
		{"older", 30 * time.Second, func(*rig) {}, published},
		{"older, and the device moved and came back", 30 * time.Second, func(r *rig) { moves(r) }, published},
		{"older, and another replica had the device", 30 * time.Second, func(r *rig) { moves(r)() }, dropped},
		{"by a slow clock, and another replica had the device", time.Hour, func(r *rig) { moves(r)() }, dropped},
		{"newer", -time.Hour, func(*rig) {}, dropped},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := holdAnswer(t, at(2, 2), at(3, 3), func(r *rig, _ *Parts) {
				r.publishAsAnother(time.Now().Add(-time.Minute), at(1, 1))
			})
			r.polls("a", 2) // the state of the stream is shown
			r.show <- at(2, 2)
			<-r.waiting
			r.publishAsAnother(time.Now().Add(-test.seen), at(9, "other"))
			test.until(r.rig)
			r.own(func(string) bool { return true }) // another assignment alone changes nothing
			close(r.answer)
			r.ends(3, test.want)
		})
	}
}

// TestAnswerAfterThePause makes the API answer a poll before its process was paused until
// its lease ran out. The answer waits until it is known if another replica took over,
// whether or not that one has published.
func TestAnswerAfterThePause(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		takenOver bool
		other     string // published by the other replica
		want      []string
	}{
		{"lease renewed", false, "", []string{"location.a 1", "location.a 2", "location.a 3"}},
		{"taken over", true, "", []string{"location.a 1", "location.a 3"}},
		{"taken over, and published", true, at(9, "other"), []string{"location.a 1", "location.a other", "location.a 3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := holdAnswer(t, at(2, 2), at(3, 3), nil)
			r.show <- at(2, 2)
			<-r.waiting
			r.share.lapsed.Store(true)
			if test.other != "" {
				r.publishAsAnother(time.Now(), test.other)
			}
			close(r.answer)
			natstest.Eventually(t, "the answer waits", func() bool { return r.share.asked.Load() > 0 })
			if test.takenOver {
				_, revoke := r.own(func(string) bool { return false })
				revoke()
			}
			r.share.lapsed.Store(false)
			r.own(func(string) bool { return true })
			r.ends(3, test.want)
		})
	}
}

// away is a state that cannot be read a few times, as of a broker that restarts.
type away struct {
	*publisher.Reader

	times atomic.Int64
}

// StateOf implements [State].
func (a *away) StateOf(ctx context.Context, device string, allAlerts bool, f func(publisher.Stored)) error {
	if a.times.Add(-1) >= 0 {
		return errors.New("the broker is away")
	}
	return a.Reader.StateOf(ctx, device, allAlerts, f)
}

// TestAnswerWhileTheStreamCannotBeRead makes the API answer a poll while the broker is away,
// and never show that location again.
func TestAnswerWhileTheStreamCannotBeRead(t *testing.T) {
	t.Parallel()
	state := &away{}
	r := holdAnswer(t, at(2, 2), at(3, 3), func(r *rig, p *Parts) {
		state.Reader = r.pub.Reader()
		p.State = state
	})
	r.show <- at(2, 2)
	<-r.waiting
	state.times.Store(3)
	r.pool.Resync()
	close(r.answer)
	r.ends(3, []string{"location.a 1", "location.a 2", "location.a 3"})
}

// TestPollsAreCountedOnce makes another replica publish the location that a poll then
// shows: the poll was a change at first, and is not also counted as unchanged.
func TestPollsAreCountedOnce(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a")
	o := options()
	o.Refresh = time.Hour
	waiting, answer := make(chan struct{}), make(chan struct{})
	second := false
	show := make(chan struct{})
	api.next["a"] = func(int) (string, error) {
		select {
		case <-show:
			if !second {
				second = true
				close(waiting)
				<-answer
			}
			return at(2, 2), nil
		default:
			return at(1, 1), nil
		}
	}
	r := newRigWith(t, natstest.Start(t), api, api, o, func(r *rig, _ *Parts) {
		r.publishAsAnother(time.Now().Add(-time.Minute), at(1, 1))
	})
	r.polls("a", 2)
	close(show)
	<-waiting
	r.publishAsAnother(time.Now().Add(-30*time.Second), at(2, 2))
	close(answer)
	r.forgetPolls()
	r.polls("a", 2)
	r.stop()
	equal(t, withoutDevices(summary(r.events())), []string{"location.a 1", "location.a 2"})
	m := r.pool.metrics
	if got := testutil.ToFloat64(m.changed); got != 1 || testutil.ToFloat64(m.conflicts) != 1 {
		t.Errorf("%v polls changed", got)
	}
	if ended := testutil.ToFloat64(m.unchanged) + 1; ended != float64(histogramCount(t, m.duration)) {
		t.Errorf("%v polls counted, %d made", ended, histogramCount(t, m.duration))
	}
}

// histogramCount returns the number of observations.
func histogramCount(t *testing.T, h prometheus.Metric) uint64 {
	t.Helper()
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetHistogram().GetSampleCount()
}
