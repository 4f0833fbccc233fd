package inbound

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestMemory has messages come again after they were finished.
func TestMemory(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	did := func(seq uint64, size int) *message {
		return &message{seq: seq, at: at, outcome: &outcome{result: resultPosted, main: &nats.Msg{Data: make([]byte, size)}, stored: true, counted: true}}
	}
	var y memory
	small, large := did(7, 10), did(8, memoryBody+1)
	y.add(small)
	y.add(large)
	for _, test := range []struct {
		name string
		m    *message
		want bool
	}{
		{"the same", &message{seq: 7, at: at.In(time.Local)}, true},
		{"one of another stream", &message{seq: 7, at: at.Add(time.Nanosecond)}, false},
		{"one that was not finished", &message{seq: 9, at: at}, false},
		{"one with a large result", &message{seq: 8, at: at}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := y.recall(test.m)
			if got := o != nil; got != test.want {
				t.Fatalf("recalled: %v, want %v", got, test.want)
			}
			if o != nil && (o.main != small.outcome.main || o.stored || !o.counted || o.reply != nil) {
				t.Errorf("recalled as %+v, want it stored once more, and neither counted nor sent again", o)
			}
		})
	}
	for i := range uint64(memoryMessages) {
		if y.recall(&message{seq: 7, at: at}) == nil {
			t.Fatalf("forgotten after %d others", i)
		}
		y.add(did(100+i, 10))
	}
	if y.recall(&message{seq: 7, at: at}) != nil {
		t.Errorf("still there after %d others", memoryMessages)
	}
	if len(y.done) != memoryMessages {
		t.Errorf("%d messages are remembered, want %d", len(y.done), memoryMessages)
	}
}
