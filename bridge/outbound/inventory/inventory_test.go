package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
)

// TestEventThatTheStreamCannotTake checks one entry that is larger than the
// stream's limit: it must cost neither a resync nor a reading of the list.
func TestEventThatTheStreamCannotTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a big c"), refuse: func(e *publisher.Event) error {
			if strings.HasSuffix(e.Subject, ".big") {
				return fmt.Errorf("publish: %w", publisher.ErrUnstorable)
			}
			return nil
		}}
		v := w.run(t, Selection{})
		for range 12 {
			w.pass(refresh)
			v.Load(held("a", "c")) // the state is read again
		}
		if n := w.count("plaspy.device.big"); n != 1 {
			t.Errorf("the event was sent %d times in an hour, want once", n)
		}
		if w.reads != 13 || w.resyncs != 0 {
			t.Errorf("the list was read %d times and the state %d times, want 13 and 0", w.reads, w.resyncs)
		}
		if n := strings.Count(w.log.String(), "device event can never be stored"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, w.log.String())
		}
		if len(w.fleet) != 3 || v.State().Devices != 3 {
			t.Errorf("%d devices are followed, want 3", len(w.fleet))
		}
		w.set(func() { w.list[1].Raw = []byte(`{"id":"big","name":"smaller"}`); w.refuse = nil })
		w.pass(refresh)
		if !slices.Contains(w.stored, "big") {
			t.Error("the changed entry was not published")
		}
	})
}

func TestConflictHasTheStateReadAgain(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{&publisher.Conflict{Event: &publisher.Event{}}, 1},
		{publisher.ErrFound, 1},
		{publisher.ErrUnstorable, 0},
		{publisher.ErrStopped, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{list: devices("a"), refuse: func(*publisher.Event) error { return tc.err }}
			w.run(t, Selection{})
			w.pass(time.Minute)
			if w.resyncs != tc.want {
				t.Errorf("%v: %d resyncs, want %d", tc.err, w.resyncs, tc.want)
			}
		})
	}
}

// TestOnlyARefreshConfirms: replicas that join or leave, and readings of the
// state, compare the list at hand. They do not confirm it.
func TestOnlyARefreshConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b")}
		v := w.run(t, Selection{})
		w.pass(refresh - time.Second)
		w.set(func() { w.list = nil })
		w.pass(2 * time.Second)
		for range 200 {
			v.Compare()
			v.Load(held("a", "b"))
			w.pass(time.Second)
		}
		if len(w.stored) != 2 || len(w.fleet) != 2 {
			t.Fatalf("stored %v, followed %v before the next refresh", w.stored, w.fleet)
		}
		if !strings.Contains(w.log.String(), "device list is empty or much shorter") {
			t.Errorf("log:\n%s", w.log.String())
		}
		w.pass(refresh)
		if len(w.stored) != 4 || len(w.fleet) != 0 {
			t.Errorf("stored %v, followed %v after the next refresh", w.stored, w.fleet)
		}
	})
}

// TestAListThatFailsConfirmsNothing: the retries of a failing list are not
// refreshes of their own.
func TestAListThatFailsConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b"), listErr: errors.New("down")}
		v := w.run(t, Selection{})
		w.pass(time.Hour)
		if s := v.State(); s.Read || !strings.Contains(s.Err, "down") {
			t.Errorf("state %+v", s)
		}
		if w.reads < 30 || w.reads > 100 {
			t.Errorf("read %d times in an hour of failures", w.reads)
		}
		w.set(func() { w.listErr = nil })
		w.pass(2 * time.Minute)
		w.set(func() { w.listErr = errors.New("down"); w.list = nil })
		w.pass(time.Hour)
		if s := v.State(); len(w.fleet) != 2 || s.Devices != 2 || s.Err == "" {
			t.Errorf("%d devices are followed, state %+v", len(w.fleet), s)
		}
		w.set(func() { w.listErr = nil })
		w.pass(90 * time.Second) // back, and empty
		if len(w.fleet) != 2 {
			t.Error("the first empty list after a failure removes devices")
		}
	})
}

// TestListWhileTheAPIIsDown: a refresh that is shorter than the longest backoff does
// not have the list read more often than that while the API is down.
func TestListWhileTheAPIIsDown(t *testing.T) {
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{list: devices("a b")}
			v := w.start(t, Options{Refresh: time.Second, Down: func() bool { return down }})
			w.pass(10 * time.Second)
			w.set(func() { w.listErr, w.reads = errors.New("down"), 0 })
			w.pass(10 * time.Minute)
			if least, most := 600, 1000; !down && (w.reads < least || w.reads > most) {
				t.Errorf("read %d times in ten minutes of a list that fails alone", w.reads)
			}
			if most := 30; down && w.reads > most {
				t.Errorf("read %d times in ten minutes of an outage, want at most %d", w.reads, most)
			}
			if s := v.State(); s.Devices != 2 || len(w.fleet) != 2 {
				t.Errorf("state %+v, %d devices are followed", s, len(w.fleet))
			}
			w.set(func() { w.listErr = nil })
			w.pass(time.Minute)
			if s := v.State(); s.Err != "" {
				t.Errorf("state %+v a minute after the outage", s)
			}
		})
	}
}

// TestRemovalsHoldUpNothing removes 10,000 devices while the broker takes
// seconds for each look-up.
func TestRemovalsHoldUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fleet, leave = 25_000, 10_000
		var ids []string
		for i := range fleet {
			ids = append(ids, fmt.Sprintf("d%05d", i))
		}
		w := &world{list: devices(strings.Join(ids, " ")), lookup: func(ctx context.Context) {
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Second):
			}
		}}
		w.loading = true
		v := w.run(t, Selection{})
		v.Load(held(ids...))
		w.set(func() { w.loading = false })
		w.pass(time.Second)
		w.set(func() { w.list = append(devices("new"), w.list[leave:]...) })
		w.pass(refresh + time.Second)
		if n := w.count("plaspy.device.new"); n != 1 || len(w.fleet) != fleet-leave+1 {
			t.Errorf("a second after the refresh the new device has %d events, and %d devices are followed", n, len(w.fleet))
		}
		reads := w.reads
		w.pass(refresh)
		if w.reads != reads+1 {
			t.Errorf("the list was read %d times in the next refresh", w.reads-reads)
		}
		w.pass(leave/maxTasks*3*time.Second - refresh)
		sent := map[string]int{}
		for _, subject := range w.tries {
			sent[subject]++
		}
		for _, id := range ids[:leave] {
			if n := sent["plaspy.device."+id]; n != 1 {
				t.Fatalf("%s has %d events, want its removal", id, n)
			}
		}
	})
}

// TestStopWhileTheBrokerIsAway: an event without an answer keeps no goroutine.
func TestStopWhileTheBrokerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b"), hang: true}
		v := w.run(t, Selection{})
		v.Load(held("a", "b", "c"))
		w.pass(2 * refresh)
		if n := w.count("plaspy.device.c"); n != 1 {
			t.Errorf("%d removals were sent", n)
		}
	}) // the bubble fails if Run does not return
}

// TestLostStreamHasTheListRead: events that the stream lost are published again, with one
// reading of the list and no more.
func TestLostStreamHasTheListRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b")}
		v := w.run(t, Selection{})
		w.pass(time.Minute)
		v.Load(held())
		w.pass(time.Second)
		if w.reads != 2 || len(w.stored) != 4 {
			t.Errorf("%d readings of the list, stored %v", w.reads, w.stored)
		}
		w.set(func() { w.listErr = errors.New("down") })
		v.Load(held())
		for range 50 {
			v.Compare()
			w.pass(100 * time.Millisecond)
		}
		if w.reads > 5 {
			t.Errorf("%d readings of a list that fails", w.reads)
		}
	})
}

func TestNothingBeforeTheStateIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a"), loading: true}
		v := w.run(t, Selection{})
		w.pass(time.Hour)
		if w.reads != 0 {
			t.Errorf("the list was read %d times", w.reads)
		}
		v.Load(held("a"))
		w.set(func() { w.loading = false })
		w.pass(time.Second)
		if w.reads != 1 || len(w.tries) != 0 {
			t.Errorf("%d readings, events %v", w.reads, w.tries)
		}
	})
}

// TestDevicesThatCome: events of another replica's devices are left to it, and
// published here once they are this replica's.
func TestDevicesThatCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b"), foreign: map[string]bool{"b": true}}
		v := w.run(t, Selection{})
		w.pass(time.Minute)
		if got := fmt.Sprint(w.stored); got != "[a]" {
			t.Errorf("stored %v", got)
		}
		w.set(func() { w.foreign = nil })
		v.Compare()
		w.pass(time.Second)
		if got := fmt.Sprint(w.stored); got != "[a b]" || w.reads != 1 {
			t.Errorf("stored %v after %d readings", got, w.reads)
		}
	})
}

func TestSelectionWithoutEffectIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b"), groups: []plaspy.Group{{ID: "1", Name: "North", Devices: []string{"a", "b"}}}}
		v := w.run(t, Selection{Devices: []string{"a", "x*", `"b"`}, Groups: []string{"North", "Sud"}})
		w.pass(time.Hour)
		if s := v.State(); s.Devices != 1 || s.Listed != 2 {
			t.Errorf("state %+v", s)
		}
		log := w.log.String()
		for _, want := range []string{`pattern=x*`, `pattern="\"b\""`, `group=Sud`} {
			if strings.Count(log, want) != 1 {
				t.Errorf("want one line with %s in\n%s", want, log)
			}
		}
		if strings.Contains(log, "pattern=a") || strings.Contains(log, "group=North") {
			t.Errorf("log\n%s", log)
		}
	})
}

// TestLastPositions: the key of a removed device is deleted with the removal and
// once more at the next refresh, and restored if the device returns.
func TestLastPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b")}
		w.run(t, Selection{})
		w.pass(time.Minute)
		w.set(func() { w.list = devices("a") })
		w.pass(refresh)
		if got := fmt.Sprint(w.keys); got != "[remove b]" {
			t.Errorf("after the removal: %v", got)
		}
		w.pass(3 * refresh)
		if got := fmt.Sprint(w.keys); got != "[remove b remove b]" {
			t.Errorf("after more refreshes: %v", got)
		}
		w.set(func() { w.list = devices("a b") })
		w.pass(2 * refresh)
		if got := fmt.Sprint(w.keys); got != "[remove b remove b restore b]" {
			t.Errorf("after the return: %v", got)
		}
		if got := fmt.Sprint(w.stored); got != "[a b b b]" {
			t.Errorf("events of %v", got)
		}
	})
}

// TestRemovedBeforeTheStart: a key that a crash left behind is deleted.
func TestRemovedBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a"), loading: true}
		v := w.run(t, Selection{})
		v.Load(func(yield func(string, Image) bool) {
			yield("b", Image{ID: "b", Met: true, Event: ReadEvent(&publisher.Stored{Seq: 1, Body: []byte(`{"change":"removed","device":{"id":"b"}}`)})})
		})
		w.set(func() { w.loading = false })
		w.pass(time.Hour)
		if got := fmt.Sprint(w.keys); got != "[remove b]" {
			t.Errorf("got %v", got)
		}
	})
}

// TestGroupsOfEvents: groups are read with each refresh, and a failure keeps those
// that were read before without holding up the list.
func TestGroupsOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a b c d"), groups: []plaspy.Group{
			{ID: "2", Name: "South", Devices: []string{"b", "a", "unlisted"}}, {ID: "1", Devices: []string{"a", "a", "d"}}, {Name: "No id", Devices: []string{"c"}}, {Devices: []string{"d"}},
		}}
		v := w.start(t, Options{Groups: true})
		check := func(want string) {
			t.Helper()
			var got []string
			for _, id := range []string{"a", "b", "c", "d", "e", "unlisted"} {
				got = append(got, strings.Join(v.Groups(id), "+"))
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("groups %q, want %q", s, want)
			}
		}
		w.pass(time.Minute)
		check("1+2 2 No id 1  ")
		w.set(func() { w.noGroup = errors.New("down"); w.list = devices("a b c d e"); w.groups = nil })
		w.pass(3 * refresh)
		check("1+2 2 No id 1  ")
		if len(w.fleet) != 5 || v.State().Err != "" {
			t.Errorf("%d devices are followed, state %+v", len(w.fleet), v.State())
		}
		if n := strings.Count(w.log.String(), "could not read groups"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.set(func() { w.noGroup = nil; w.groups = []plaspy.Group{{ID: "9", Devices: []string{"e"}}} })
		w.pass(refresh)
		check("    9 ")
	})
}

func TestGroupsAreNotReadUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{list: devices("a"), noGroup: errors.New("forbidden")}
		v := w.run(t, Selection{})
		w.pass(time.Hour)
		if s := v.State(); s.Devices != 1 || s.Err != "" {
			t.Errorf("state %+v", s)
		}
	})
}
