package bridge

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

type listOf struct {
	ids   []string
	err   error
	reads int
	takes time.Duration // 0 means a second
}

func (l *listOf) Devices(context.Context) (devices []plaspy.Device, skipped []error, err error) {
	l.reads++
	time.Sleep(cmp.Or(l.takes, time.Second))
	for _, id := range l.ids {
		devices = append(devices, plaspy.Device{ID: id})
	}
	return devices, nil, l.err
}

// TestAccountDevices: the list is read for the question, once for all that ask
// meanwhile, and not more often than once in ten seconds.
func TestAccountDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listOf{ids: []string{"a"}}
		d := newAccountDevices(l)
		type answer struct {
			there bool
			err   error
		}
		answers := make(chan answer, 10)
		ask := func(id string) {
			there, err := d.Has(t.Context(), id)
			answers <- answer{there, err}
		}
		for range 5 {
			go ask("a")
			go ask("gone")
		}
		there := 0
		for range 10 {
			a := <-answers
			if a.err == nil && a.there {
				there++
			}
		}
		if l.reads != 1 {
			t.Errorf("%d readings for questions at the same time, want 1", l.reads)
		}
		if _, err := d.Has(t.Context(), "gone"); !errors.Is(err, errNotReread) {
			t.Errorf("got %v within ten seconds", err)
		}
		time.Sleep(10 * time.Second)
		if has, err := d.Has(t.Context(), "gone"); has || err != nil || l.reads != 2 {
			t.Errorf("got %v, %v after %d readings", has, err, l.reads)
		}
		time.Sleep(10 * time.Second)
		l.ids = nil
		if has, err := d.Has(t.Context(), "gone"); has || err == nil {
			t.Errorf("an empty list confirms that a device is gone")
		}
		time.Sleep(10 * time.Second)
		l.err = errors.New("no")
		if _, err := d.Has(t.Context(), "gone"); err == nil {
			t.Error("a list that failed confirms that a device is gone")
		}
	})
}

// TestAccountDevicesTurns: many devices that ask often do not keep one that asks rarely
// from its answer, which is read after it has asked.
func TestAccountDevicesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listOf{ids: []string{"a", "new"}}
		d := newAccountDevices(l)
		if _, err := d.Has(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"gone", "new"} {
			if _, err := d.Has(t.Context(), id); !errors.Is(err, errNotReread) {
				t.Fatalf("%s: got %v from a list that was read before the question", id, err)
			}
		}
		for reads := l.reads; l.reads == reads; time.Sleep(100 * time.Millisecond) {
			if _, err := d.Has(t.Context(), "a"); err != nil && !errors.Is(err, errNotReread) {
				t.Fatal(err)
			}
		}
		if there, err := d.Has(t.Context(), "gone"); there || err != nil {
			t.Errorf("a device that is gone: got %v, %v after the next reading", there, err)
		}
		if there, err := d.Has(t.Context(), "new"); !there || err != nil {
			t.Errorf("a device of the list: got %v, %v after the next reading", there, err)
		}
		if _, err := d.Has(t.Context(), "gone"); !errors.Is(err, errNotReread) {
			t.Errorf("got %v for a second question of the same device", err)
		}
	})
}

// TestAccountDevicesSlow: a list that takes long to read is read less often.
func TestAccountDevicesSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listOf{ids: []string{"a"}, takes: 6 * time.Second}
		d := newAccountDevices(l)
		if _, err := d.Has(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if _, err := d.Has(t.Context(), "a"); !errors.Is(err, errNotReread) {
			t.Errorf("got %v in the minute after a reading that took 6 s", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := d.Has(t.Context(), "a"); err != nil || l.reads != 2 {
			t.Errorf("got %v after a minute and %d readings", err, l.reads)
		}
	})
}
