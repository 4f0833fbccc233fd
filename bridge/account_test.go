package bridge

import (
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
}

func (l *listOf) Devices(context.Context) (devices []plaspy.Device, skipped []error, err error) {
	l.reads++
	time.Sleep(time.Second)
	for _, id := range l.ids {
		devices = append(devices, plaspy.Device{ID: id})
	}
	return devices, nil, l.err
}

// TestAccountDevices: the list is read for the question, once for all that ask
// meanwhile, and not more often than once a minute.
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
			t.Errorf("got %v within the minute", err)
		}
		time.Sleep(time.Minute)
		if has, err := d.Has(t.Context(), "gone"); has || err != nil || l.reads != 2 {
			t.Errorf("got %v, %v after %d readings", has, err, l.reads)
		}
		time.Sleep(time.Minute)
		l.ids = nil
		if has, err := d.Has(t.Context(), "gone"); has || err == nil {
			t.Errorf("an empty list confirms that a device is gone")
		}
		time.Sleep(time.Minute)
		l.err = errors.New("no")
		if _, err := d.Has(t.Context(), "gone"); err == nil {
			t.Error("a list that failed confirms that a device is gone")
		}
	})
}
