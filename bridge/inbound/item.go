package inbound

import (
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
)

// item is one inbound message in hand.
type item struct {
	message.Message
	// delivery acknowledges the message. It is nil if the message was read from
	// the stream, and has to be deleted instead.
	delivery jetstream.Msg
	// outcome is set once the message was posted or given up, and only has to
	// be recorded.
	outcome *message.Outcome
	counted bool // the metrics have the outcome
	posted  bool // by this run, which has it among its open posts until it is recorded
}
