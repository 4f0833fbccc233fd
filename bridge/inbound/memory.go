package inbound

import (
	"sync"
	"time"

	"plaspy-bridge/bridge/inbound/message"
)

const (
	memoryMessages = 1024
	memoryBody     = 8 << 10
)

// memory is what was finished of late, and how. A server can go back on an
// acknowledgement that it confirmed: its disk was full when it wrote it down, or
// another of the cluster took over before the message was removed everywhere.
// The message then comes again, behind others of its device that were posted
// meanwhile, and must not be posted again. It is safe for concurrent use.
type memory struct {
	mu   sync.Mutex
	done map[uint64]finished // by sequence
	ring [memoryMessages]uint64
	next int
}

// finished is a message that was recorded. The time tells it from one of a
// stream that was made anew and counts from one.
type finished struct {
	at      time.Time
	outcome *message.Outcome
}

// add remembers a message whose outcome was recorded, for as long as no
// memoryMessages others come, unless its result is large.
func (y *memory) add(m *item) {
	if m.outcome.Size() > memoryBody {
		return
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.done == nil {
		y.done = make(map[uint64]finished, memoryMessages)
	}
	if _, known := y.done[m.Seq]; known { // recorded once more: it has its place
		y.done[m.Seq] = finished{m.At, m.outcome}
		return
	}
	delete(y.done, y.ring[y.next])
	y.ring[y.next] = m.Seq
	y.next = (y.next + 1) % memoryMessages
	y.done[m.Seq] = finished{m.At, m.outcome}
}

// recall gives the outcome of a message that comes again, to be recorded once
// more: what took back the acknowledgement may have taken the result, too. It is
// nil for any other message.
func (y *memory) recall(m *item) *message.Outcome {
	y.mu.Lock()
	defer y.mu.Unlock()
	before, known := y.done[m.Seq]
	if !known || !before.at.Equal(m.At) {
		return nil
	}
	before.outcome.Restart()
	return before.outcome
}
