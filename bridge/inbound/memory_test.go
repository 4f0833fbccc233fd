package inbound

import (
	"testing"
	"time"

	"plaspy-bridge/bridge/inbound/message"
)

// TestMemory has messages come again after they were finished.
func TestMemory(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	did := func(seq uint64, size int) *item {
		m := &item{Message: message.Message{Seq: seq, At: at, Address: message.AddressOf(subjects, "plaspy.in.location.d")}}
		w := message.Writer{Subjects: subjects}
		m.outcome, _ = w.Outcome(&m.Message, message.Decision{Response: make([]byte, size)})
		m.outcome.Stored(1)
		return m
	}
	known := func(seq uint64, at time.Time) *item { return &item{Message: message.Message{Seq: seq, At: at}} }
	var y memory
	small, large := did(7, 10), did(8, memoryBody+1)
	y.add(small)
	y.add(large)
	for _, test := range []struct {
		name string
		m    *item
		want bool
	}{
		{"the same", known(7, at.In(time.Local)), true},
		{"one of another stream", known(7, at.Add(time.Nanosecond)), false},
		{"one that was not finished", known(9, at), false},
		{"one with a large result", known(8, at), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := y.recall(test.m)
			if got := o != nil; got != test.want {
				t.Fatalf("recalled: %v, want %v", got, test.want)
			}
			if o != nil && (o != small.outcome || o.Next() == nil) {
				t.Errorf("recalled as %+v, want it stored once more", o)
			}
		})
	}
	for i := range uint64(memoryMessages) {
		if y.recall(known(7, at)) == nil {
			t.Fatalf("forgotten after %d others", i)
		}
		y.add(did(100+i, 10))
	}
	if y.recall(known(7, at)) != nil {
		t.Errorf("still there after %d others", memoryMessages)
	}
	if len(y.done) != memoryMessages {
		t.Errorf("%d messages are remembered, want %d", len(y.done), memoryMessages)
	}
}
