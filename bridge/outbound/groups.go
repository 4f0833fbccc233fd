package outbound

import (
	"context"

	"plaspy-bridge/publisher"
)

// groupedStream adds the groups of its device to each event before it is
// published.
type groupedStream struct {
	Stream
	subjects publisher.Subjects
	groups   func(token string) []string
}

// Publish adds the groups and publishes the events.
func (g groupedStream) Publish(ctx context.Context, events []*publisher.Event, done func(error)) error {
	for _, e := range events {
		if _, token, _, ok := g.subjects.Kind(e.Subject); ok {
			e.SetGroups(g.groups(token))
		}
	}
	return g.Stream.Publish(ctx, events, done)
}
