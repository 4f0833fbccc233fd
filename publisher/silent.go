package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SilentAlert is the name of the alert that the bridge itself raises.
const SilentAlert = "silent"

// SilentBucket names the key-value bucket of every device's newest event of the
// alert silent.
func (s Subjects) SilentBucket() string { return s.bucket("silent") }

// silentBucket is a bucket that the server fills by itself, out of the events
// stream, like that of the last locations. It outlives the events: a device may
// be silent for longer than their retention.
func (s Subjects) silentBucket(replicas int) jetstream.StreamConfig {
	cfg := s.lastBucket(StreamOptions{Replicas: replicas})
	name := s.SilentBucket()
	cfg.Name, cfg.Subjects = BucketStream(name), []string{BucketKey(name, ">")}
	cfg.Description = "plaspy-bridge: every device's newest event of the alert silent"
	cfg.Sources = []*jetstream.StreamSource{{
		Name: s.Events(),
		SubjectTransforms: []jetstream.SubjectTransformConfig{{
			Source: s.Alert("*", SilentAlert), Destination: BucketKey(name, "{{wildcard(1)}}"),
		}},
	}}
	return cfg
}

// RememberSilent has the alert silent remembered beyond the retention of the
// events: it creates the bucket for it if that is missing. Until it has succeeded
// once, [Publisher.State] does not read the bucket.
func RememberSilent(ctx context.Context, p *Publisher) error {
	name := BucketStream(p.subjects.SilentBucket())
	if _, err := lookUp(ctx, p.js, name); err == nil {
		p.life.silent.Store(true)
		return nil
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", name, explain(err))
	}
	events, err := lookUp(ctx, p.js, p.subjects.Events())
	if err != nil {
		return fmt.Errorf("read stream state: %w", explain(err))
	}
	_, err = p.js.CreateStream(ctx, p.subjects.silentBucket(events.Config.Replicas))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was faster
		return fmt.Errorf("create stream %s: %w", name, explain(err))
	}
	p.life.silent.Store(true)
	return nil
}

// silentAgedOut calls f with the newest event of the alert silent of each device
// whose event has left the events stream by age.
func silentAgedOut(ctx context.Context, p *Publisher, mark Mark, f func(Stored)) error {
	bucket := p.subjects.SilentBucket()
	prefix := BucketKey(bucket, "")
	err := p.read(ctx, BucketStream(bucket), jetstream.DeliverLastPerSubjectPolicy, nil, func(m jetstream.Msg, _ uint64, at time.Time) {
		if seq, ok := sourceSeq(m.Headers()); ok && mark.gone(seq, at) {
			f(Stored{Kind: "alert", Device: m.Subject()[len(prefix):], Alert: SilentAlert, At: at, Header: m.Headers(), Body: m.Data()})
		}
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // an operator deleted it
	}
	return err
}
