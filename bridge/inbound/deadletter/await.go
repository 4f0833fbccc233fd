package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// Fate is the outcome of a message that was put back.
type Fate struct {
	Posted     bool   `json:"posted"`
	Status     int    `json:"status"`
	Reason     string `json:"reason"`     // why it was given up again
	Error      string `json:"error"`      // the API's answer to that
	DeadLetter uint64 `json:"deadLetter"` // the sequence of the new dead letter
}

// Results reads the results that are stored after [Box.Results] was called.
type Results struct {
	it     jetstream.MessagesContext
	prefix string
	fates  map[uint64]Fate // by sequence in the inbound stream
}

// Results begins to read the results that are stored from now on. Close ends it.
func (b *Box) Results(ctx context.Context) (*Results, error) {
	setup, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := b.js.Stream(setup, b.subjects.Results())
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", b.subjects.Results(), err)
	}
	c, err := st.OrderedConsumer(setup, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: st.CachedInfo().State.LastSeq + 1,
	})
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	it, err := c.Messages(jetstream.PullMaxMessages(100))
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return &Results{it: it, prefix: b.subjects.Inbound() + ":", fates: make(map[uint64]Fate)}, nil
}

// Close ends the reading.
func (r *Results) Close() { r.it.Stop() }

// Await waits for the result of the inbound message with a sequence. It reports
// false if there is none by the end of ctx.
func (r *Results) Await(ctx context.Context, sequence uint64) (Fate, bool, error) {
	for {
		if fate, known := r.fates[sequence]; known {
			delete(r.fates, sequence)
			return fate, true, nil
		}
		if ctx.Err() != nil {
			return Fate{}, false, nil //nolint:nilerr // no result in time is an answer
		}
		msg, err := r.it.Next(jetstream.NextContext(ctx))
		if err != nil && ctx.Err() != nil {
			continue
		}
		if err != nil {
			return Fate{}, false, fmt.Errorf("read results: %w", err)
		}
		// The id of a result begins with the sequence of its message.
		rest, ok := strings.CutPrefix(msg.Headers().Get(publisher.HeaderID), r.prefix)
		number, _, _ := strings.Cut(rest, ":")
		seq, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			continue // another program's
		}
		var fate Fate
		if err := json.Unmarshal(msg.Data(), &fate); err == nil {
			r.fates[seq] = fate
		}
	}
}
