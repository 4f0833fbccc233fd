package natsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/publisher"
)

// ReadEvents reads the whole events stream.
func ReadEvents(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects) ([]judge.Event, error) {
	var events []judge.Event
	err := ReadAll(ctx, js, subjects.Events(), func(m jetstream.Msg, seq uint64) error {
		e, err := parseEvent(m, subjects)
		if err != nil {
			return fmt.Errorf("message %d: %w", seq, err)
		}
		e.Seq = seq
		if meta, err := m.Metadata(); err == nil {
			e.Stored = meta.Timestamp
		}
		events = append(events, e)
		return nil
	})
	return events, err
}

func parseEvent(m jetstream.Msg, subjects publisher.Subjects) (judge.Event, error) {
	kind, token, _, ok := subjects.Kind(m.Subject())
	if !ok {
		return judge.Event{}, fmt.Errorf("subject %q", m.Subject())
	}
	device, err := publisher.Decode(token)
	if err != nil {
		return judge.Event{}, err
	}
	e := judge.Event{Kind: kind, Device: device, ID: m.Headers().Get(publisher.HeaderID)}
	if id := m.Headers().Get(nats.MsgIdHdr); id == "" || id != e.ID {
		return e, fmt.Errorf("Nats-Msg-Id %q and ce-id %q differ", id, e.ID)
	}
	var body struct {
		DeviceID, Alert, State, DateTime, Change, Source string
		Backfilled                                       bool
		Location                                         json.RawMessage
	}
	if err := json.Unmarshal(m.Data(), &body); err != nil {
		return e, err
	}
	if body.DeviceID != device {
		return e, fmt.Errorf("device %q on subject %q", body.DeviceID, m.Subject())
	}
	e.Raw, e.Backfilled = string(body.Location), body.Backfilled
	e.Alert, e.State, e.DateTime, e.Change, e.Source = body.Alert, body.State, body.DateTime, body.Change, body.Source
	return e, nil
}

// ReadAll calls f with each message of a stream, up to the last one at the time of the
// call. A stream that does not exist has no messages: it was deleted, and no bridge was
// there to create it again.
func ReadAll(ctx context.Context, js jetstream.JetStream, stream string, f func(jetstream.Msg, uint64) error) error {
	st, err := lookUp(ctx, js, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	last := st.CachedInfo().State.LastSeq
	if st.CachedInfo().State.Msgs == 0 {
		return nil
	}
	c, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverAllPolicy, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	it, err := c.Messages()
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if err := f(m, meta.Sequence.Stream); err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// Count returns the number of messages in a stream, or 0 if it does not exist.
func Count(ctx context.Context, js jetstream.JetStream, stream string) (uint64, error) {
	st, err := lookUp(ctx, js, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	return st.CachedInfo().State.Msgs, nil
}

// lookUp asks for a stream until a server answers that knows its present content. While
// a cluster elects a leader, no server may answer. A server that was cut off may answer
// with its own copy, which may lack most of the stream. The last leader does so until it
// hears of its successor, and a follower does so if it hears of no leader.
func lookUp(ctx context.Context, js jetstream.JetStream, stream string) (jetstream.Stream, error) {
	var last uint64
	again := false // the previous answer was current and ended with last
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := js.Stream(try, stream)
		cancel()
		switch {
		case ctx.Err() != nil:
			return st, fmt.Errorf("no server that follows the others answers for %s: %w", stream, context.Cause(ctx))
		case errors.Is(err, context.DeadlineExceeded):
			continue
		case err != nil && away(err):
			if err := pause(ctx, stream); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return st, err
		}
		info := st.CachedInfo()
		if info.Cluster == nil || len(info.Cluster.Replicas) == 0 {
			return st, nil
		}
		// A leader that was elected just now may have more to read from its log.
		current := leads(info.Cluster)
		if current && again && info.State.LastSeq == last {
			return st, nil
		}
		last, again = info.State.LastSeq, current
		if err := pause(ctx, stream); err != nil {
			return nil, err
		}
	}
}

// away reports whether an error means that no server could be asked.
func away(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// pause waits a moment before the next question about a stream.
func pause(ctx context.Context, stream string) error {
	select {
	case <-time.After(200 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no server that follows the others answers for %s: %w", stream, context.Cause(ctx))
	}
}

// lease is how long ago a replica may have answered its leader: half of the shortest time
// after which it elects another one.
const lease = 2 * time.Second

// leads reports whether the server that returned this leads the stream: a majority of its
// replicas have answered its heartbeats so recently that they cannot have elected another
// leader.
func leads(c *jetstream.ClusterInfo) bool {
	heard := 1 // itself
	for _, r := range c.Replicas {
		if !r.Offline && r.Active > 0 && r.Active < lease {
			heard++
		}
	}
	return c.Leader != "" && heard > (len(c.Replicas)+1)/2
}
