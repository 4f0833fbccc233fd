package decision

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestDecisionsKeepApart: equal results in a row count as one, and others displace nothing.
func TestDecisionsKeepApart(t *testing.T) {
	errOne, errOther := errors.New("another replica may be polling"), errors.New("the quota is used up")
	var l Log
	now := time.Now()
	turn := func(r Result, err error) {
		var d Decision
		d.Note(r, err)
		now = now.Add(time.Second)
		l.Add(d, now)
	}
	turn(Changed, nil)
	for range 24 {
		turn(PutOff, errOne)
	}
	turn(PutOff, errOther)
	l.Add(Decision{}, now) // a turn without a result
	var got []string
	for _, e := range l.List() {
		got = append(got, fmt.Sprint(e.Result, " ", e.Times, " ", e.Detail))
	}
	if want := []string{"deferred 0 " + errOther.Error(), "deferred 24 " + errOne.Error(), "changed 0 "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if last := l.List()[1].At; !last.Equal(now.Add(-time.Second).UTC().Truncate(time.Millisecond)) {
		t.Errorf("the repeated one is of %v, want the last time", last)
	}
}
