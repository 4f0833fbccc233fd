package inbound

import (
	"time"

	"plaspy-bridge/bridge/inbound/message"
)

// lane is one device's sequence of messages. At most one worker has it at a
// time, and it works on the first message only. All fields are guarded by the
// desk's mutex, but for trial, which belongs to the worker that has the lane.
type lane struct {
	message.Address

	state laneState
	// hand holds the first messages of the lane, in stream order.
	hand []*item
	// done is the highest sequence that was finished.
	done uint64
	// tail tells that more messages are in the stream, at or after next, that
	// the lane reads by itself when its hand is empty. What the consumer
	// delivers meanwhile is handed back.
	tail bool
	next uint64
	// known is the highest sequence that was handed back: the lane is not
	// through before it has seen that one.
	known uint64
	// handed counts what was handed back, so that a read of the stream that
	// began before is not taken for the end.
	handed int

	trial *trial
	timer *time.Timer // while it waits
	wait  cause       // why it waits
	pass  bool        // the circuit lets it try
}

type laneState int

const (
	laneIdle    laneState = iota // nothing to do; only inside the desk's own steps
	laneReady                    // in the queue for a worker
	laneBusy                     // a worker has it
	laneWaiting                  // until its timer fires
	laneParked                   // until the circuit lets it try
)

// head is the lane's first message, nil where it is still in the stream.
func (l *lane) head() *item {
	if len(l.hand) == 0 {
		return nil
	}
	return l.hand[0]
}

// holds returns a message of the hand.
func (l *lane) holds(seq uint64) *item {
	for _, m := range l.hand {
		if m.Seq == seq {
			return m
		}
	}
	return nil
}

// trialOf returns what is known of the tries of a message.
func (l *lane) trialOf(m *item) *trial {
	if l.trial == nil || l.trial.seq != m.Seq {
		l.trial = &trial{seq: m.Seq}
	}
	return l.trial
}
