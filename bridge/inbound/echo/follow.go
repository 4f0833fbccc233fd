package echo

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth/backoff"
	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// The waits before the stream is followed again after a failure. The first ones are short because this
// bridge may be making the stream.
const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = time.Second
)

// Run follows the stream of results until ctx ends: first the results of the last
// day, then those of all replicas as they come. It reads headers only. After an
// interruption it goes on from the last result that it read.
func (t *Tracker) Run(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, log *slog.Logger) {
	since := time.Now().Add(-ttl)
	backoff.Repeat(ctx, firstRetry, longestRetry, func() {
		if err := t.follow(ctx, js, subjects, &since); ctx.Err() == nil {
			log.Debug("could not follow the results, retrying", "err", err)
		}
	})
}

// follow reads the results stored at or after since, and moves since to the time
// of the last one that it read.
func (t *Tracker) follow(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects, since *time.Time) error {
	from := *since
	c, err := js.OrderedConsumer(ctx, subjects.Results(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjects.Result(string(message.Location), "*")},
		DeliverPolicy:  jetstream.DeliverByStartTimePolicy, OptStartTime: &from, HeadersOnly: true,
	})
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	it, err := c.Messages(jetstream.PullMaxMessages(256))
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		msg, err := it.Next()
		if err != nil {
			return fmt.Errorf("follow results: %w", err)
		}
		for _, value := range msg.Headers().Values(message.HeaderPosted) {
			if f, err := message.ParseFix(value); err == nil {
				t.Taken(msg.Headers().Get(publisher.HeaderSubject), f)
			}
		}
		if meta, err := msg.Metadata(); err == nil && meta.Timestamp.After(*since) {
			*since = meta.Timestamp
		}
	}
}
