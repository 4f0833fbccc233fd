package publisher

import (
	"context"
	"fmt"
	"slices"
	"time"

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

// headerOrigin is the sequence in the events stream of an entry that
// [Publisher.FillLast] put; the server has a header of its own for it.
const headerOrigin = "plaspy-sequence"

// entry is what the last-location bucket holds under one key.
type entry struct {
	revision uint64
	origin   uint64 // sequence in the events stream; 0: unknown
}

// FillLast puts every location event into the last-location bucket, the newest
// of each device first and then what comes, until ctx ends, which is its error
// then. It is for a bucket that somebody made without the source that the
// bridge's own has. Several replicas may do so at once: each write is fenced by
// the entry that it replaces, and nobody replaces a newer one.
func (p *Publisher) FillLast(ctx context.Context) error {
	bucket := p.subjects.LastBucket()
	prefix := BucketKey(bucket, "")
	there := map[string]entry{}
	if err := p.read(ctx, BucketStream(bucket), jetstream.DeliverLastPerSubjectPolicy, nil, func(m jetstream.Msg, seq uint64, _ time.Time) {
		origin, _ := sourceSeq(m.Headers())
		there[m.Subject()] = entry{seq, origin}
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
		if !ok {
			continue
		}
		if there[prefix+device], err = p.fill(ctx, prefix+device, m, there[prefix+device]); err != nil {
			return fmt.Errorf("put into bucket %s: %w", bucket, explain(err))
		}
	}
}

// fill puts one event in the place of an entry, and gives the one that is there
// then: it, or a newer one by somebody else.
func (p *Publisher) fill(ctx context.Context, subject string, m jetstream.Msg, old entry) (entry, error) {
	meta, err := m.Metadata()
	if err != nil {
		return old, err
	}
	seq := meta.Sequence.Stream
	out := copyOf(subject, m.Headers(), m.Data(), seq)
	for old.origin < seq {
		ack, err := p.js.PublishMsg(ctx, out, jetstream.WithExpectLastSequencePerSubject(old.revision))
		if err == nil {
			return entry{ack.Sequence, seq}, nil
		}
		if judge(err) != fenced {
			return old, err
		}
		last, err := NewLeader(p.js, BucketStream(p.subjects.LastBucket())).Last(ctx, subject)
		if err != nil {
			return old, err
		}
		if last == nil {
			old = entry{}
			continue
		}
		origin, _ := sourceSeq(last.Header)
		old = entry{last.Sequence, origin}
	}
	return old, nil
}
