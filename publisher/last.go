package publisher

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Filled reports whether the server fills by itself each bucket that it should, as
// far as the reports of [EnsureStreams] tell.
func Filled(reports []StreamReport, want []jetstream.StreamConfig) bool {
	for _, cfg := range want {
		at := slices.IndexFunc(reports, func(r StreamReport) bool { return r.Stream == cfg.Name })
		if len(cfg.Sources) == 0 || at < 0 {
			continue
		}
		origin := cfg.Sources[0].Name
		if !slices.ContainsFunc(reports[at].Info.Config.Sources, func(s *jetstream.StreamSource) bool { return s.Name == origin }) {
			return false
		}
	}
	return true
}

// FillLast puts every location event into the last-location bucket, the newest
// of each device first and then what comes, until ctx ends, which is its error
// then. It is for a bucket that somebody made without the source that the
// bridge's own has. Several replicas may do so at once: an entry carries the
// event's message id, so that the bucket takes it once, and the newest of a
// device is the last that each of them puts.
func (p *Publisher) FillLast(ctx context.Context) error {
	bucket := p.subjects.LastBucket()
	prefix := "$KV." + bucket + "."
	there := map[string]string{}
	if err := p.read(ctx, "KV_"+bucket, jetstream.DeliverLastPerSubjectPolicy, nil, func(m jetstream.Msg, _ uint64, _ time.Time) {
		there[m.Subject()] = m.Headers().Get(nats.MsgIdHdr)
	}); err != nil {
		return err
	}
	c, err := p.js.OrderedConsumer(ctx, p.subjects.Events(), jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{p.subjects.Location("*")},
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", p.subjects.Events(), explain(err))
	}
	it, err := c.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", p.subjects.Events(), explain(err))
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		m, err := it.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("read stream %s: %w", p.subjects.Events(), explain(err))
		}
		_, device, _, ok := p.subjects.Kind(m.Subject())
		subject := prefix + device
		if !ok || there[subject] == m.Headers().Get(nats.MsgIdHdr) {
			continue
		}
		delete(there, subject)
		out := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: m.Data()}
		for name, values := range m.Headers() {
			if name == nats.ExpectedLastSubjSeqHdr {
				continue // of the other stream
			}
			out.Header[name] = values
		}
		if _, err := p.js.PublishMsg(ctx, out); err != nil {
			return fmt.Errorf("put into bucket %s: %w", bucket, explain(err))
		}
	}
}
