package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Filled reports whether the server fills each bucket that it should, according to
// the reports of [EnsureStreams].
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

// replicasAbout describes the bucket that replicas share.
const replicasAbout = "plaspy-bridge: state that the replicas share"

// ReplicasConfig is the bucket that replicas share, as [Subjects.Streams] has it.
func (s Subjects) ReplicasConfig(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: s.ReplicasBucket(), Description: replicasAbout, History: 1, TTL: replicasMaxAge, Replicas: max(replicas, 1),
	}
}

// OpenBucket returns an existing bucket. Its error names the bucket.
func OpenBucket(ctx context.Context, js jetstream.KeyValueManager, name string) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}

// ReadBucket calls f with each entry of a bucket with a key that matches a filter, in the
// order in which they were written. Its error names the bucket. It waits for the server
// until ctx is cancelled.
func ReadBucket(ctx context.Context, kv jetstream.KeyValue, filter string, f func(jetstream.KeyValueEntry)) error {
	ctx, cancel := context.WithCancel(ctx) // ends the subscription of the watch
	defer cancel()
	w, err := kv.Watch(ctx, filter, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read bucket %s: %w", kv.Bucket(), err)
	}
	defer func() { _ = w.Stop() }() // it ends with the context as well
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("read bucket %s: %w", kv.Bucket(), context.Cause(ctx))
		case e, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil: // which ended the watch
				return fmt.Errorf("read bucket %s: %w", kv.Bucket(), context.Cause(ctx))
			case !ok:
				return fmt.Errorf("read bucket %s: the watch ended before the last entry", kv.Bucket())
			case e == nil: // all have come
				return nil
			}
			f(e)
		}
	}
}

// headerOrigin is the sequence in the events stream of an entry that
// [Positions.FillLast] put; the server has a header of its own for it.
const headerOrigin = "plaspy-sequence"

// entry is the state of one key of the last-location bucket.
type entry struct {
	revision uint64
	origin   uint64 // sequence in the events stream; 0 means unknown
}

// FillLast copies location events to the last-location bucket, the newest of each
// device first and then new ones, until ctx ends, and returns the cause. It is for a
// bucket that an operator made without a source. Several replicas may run it at
// once: each write is fenced by the entry that it replaces, so no write replaces a
// newer entry.
func (b Positions) FillLast(ctx context.Context) error {
	r := b.reader
	bucket := r.subjects.LastBucket()
	prefix := BucketKey(bucket, "")
	there := map[string]entry{}
	if err := r.read(ctx, BucketStream(bucket), jetstream.DeliverLastPerSubjectPolicy, nil, func(m jetstream.Msg, seq uint64, _ time.Time) {
		origin, _ := sourceSeq(m.Headers())
		there[m.Subject()] = entry{seq, origin}
	}); err != nil {
		return err
	}
	c, err := r.js.OrderedConsumer(ctx, r.subjects.Events(), jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{r.subjects.Location("*")},
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", r.subjects.Events(), explain(err))
	}
	it, err := c.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", r.subjects.Events(), explain(err))
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		m, err := it.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("read stream %s: %w", r.subjects.Events(), explain(err))
		}
		_, device, _, ok := r.subjects.Kind(m.Subject())
		if !ok {
			continue
		}
		if there[prefix+device], err = b.fill(ctx, prefix+device, m, there[prefix+device]); err != nil {
			return fmt.Errorf("put into bucket %s: %w", bucket, explain(err))
		}
	}
}

// fill replaces an entry with an event, and returns the new entry: the event, or a
// newer one from another replica.
func (b Positions) fill(ctx context.Context, subject string, m jetstream.Msg, old entry) (entry, error) {
	meta, err := m.Metadata()
	if err != nil {
		return old, err
	}
	seq := meta.Sequence.Stream
	out := copyOf(subject, m.Headers(), m.Data(), seq)
	for old.origin < seq {
		ack, err := b.reader.js.PublishMsg(ctx, out, jetstream.WithExpectLastSequencePerSubject(old.revision))
		if err == nil {
			return entry{ack.Sequence, seq}, nil
		}
		if judge(err) != fenced {
			return old, err
		}
		last, err := (&leader{b.reader.js, BucketStream(b.reader.subjects.LastBucket())}).last(ctx, subject)
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

// Header and value of the message that marks a key of a bucket as deleted.
const (
	headerOperation = "KV-Operation"
	deleted         = "DEL"
)

// Positions edits the last-location bucket, which the server otherwise fills by
// itself, and the one of the alert silent if [Positions.RememberSilent] has succeeded.
// It is safe for concurrent use.
type Positions struct{ reader *Reader }

// Positions returns the editor of the last-location bucket.
func (p *Publisher) Positions() Positions { return Positions{p.reader} }

// origin is a bucket, and the subject of the events stream from which the server
// fills one of its keys.
type origin struct{ bucket, key, subject string }

// origins lists the buckets with a key of a device.
func (b Positions) origins(device string) []origin {
	s := b.reader.subjects
	list := []origin{{s.LastBucket(), s.LastKey(device), s.Location(device)}}
	if b.reader.silent.Load() {
		list = append(list, origin{s.SilentBucket(), BucketKey(s.SilentBucket(), device), s.Alert(device, SilentAlert)})
	}
	return list
}

// each calls do for all keys of a device, also after errors.
func (b Positions) each(ctx context.Context, device, verb string, do func(context.Context, origin) error) error {
	var failed error
	for _, o := range b.origins(device) {
		if err := do(ctx, o); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s a key of %s: %w", verb, o.bucket, err))
		}
	}
	return failed
}

// Remove deletes a device's keys. It does nothing if there is no such key, or no
// bucket.
func (b Positions) Remove(ctx context.Context, device string) error {
	return b.each(ctx, device, "delete", b.remove)
}

func (b Positions) remove(ctx context.Context, o origin) error {
	last, err := b.entry(ctx, o)
	if err != nil || last == nil || last.Header.Get(headerOperation) != "" {
		return err
	}
	marker := &nats.Msg{Subject: o.key, Header: nats.Header{headerOperation: {deleted}}}
	return b.replace(ctx, marker, last.Sequence)
}

// Restore puts the device's newest events of the events stream back, if their keys
// were deleted.
func (b Positions) Restore(ctx context.Context, device string) error {
	return b.each(ctx, device, "restore", b.restore)
}

func (b Positions) restore(ctx context.Context, o origin) error {
	last, err := b.entry(ctx, o)
	if err != nil || last == nil || last.Header.Get(headerOperation) == "" {
		return err
	}
	s, err := b.reader.Last(ctx, o.subject)
	if err != nil || s == nil {
		return err
	}
	return b.replace(ctx, copyOf(o.key, s.Header, s.Body, s.Seq), last.Sequence)
}

// replace puts an entry in the place of another one, unless a newer event came
// meanwhile.
func (b Positions) replace(ctx context.Context, m *nats.Msg, revision uint64) error {
	_, err := b.reader.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(revision))
	if err != nil && judge(err) != fenced {
		return explain(err)
	}
	return nil
}

// entry reads the last message of a key from the bucket's leader; nil means that
// there is none.
func (b Positions) entry(ctx context.Context, o origin) (*jetstream.RawStreamMsg, error) {
	m, err := (&leader{b.reader.js, BucketStream(o.bucket)}).last(ctx, o.key)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil // an operator may have deleted the bucket
	}
	return m, err
}

// copyOf returns an event as an entry of the last-location bucket.
func copyOf(key string, header nats.Header, body []byte, seq uint64) *nats.Msg {
	out := &nats.Msg{Subject: key, Header: maps.Clone(header), Data: body}
	if out.Header == nil { // of a message that is not the bridge's
		out.Header = nats.Header{}
	}
	// These belong to the events stream.
	delete(out.Header, nats.MsgIdHdr)
	delete(out.Header, nats.ExpectedLastSubjSeqHdr)
	out.Header.Set(headerOrigin, strconv.FormatUint(seq, 10))
	return out
}

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
// once, [Reader.State] does not read the bucket.
func (b Positions) RememberSilent(ctx context.Context) error {
	r := b.reader
	name := BucketStream(r.subjects.SilentBucket())
	if _, err := lookUp(ctx, r.js, name); err == nil {
		r.silent.Store(true)
		return nil
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", name, explain(err))
	}
	events, err := lookUp(ctx, r.js, r.subjects.Events())
	if err != nil {
		return fmt.Errorf("read stream state: %w", explain(err))
	}
	_, err = r.js.CreateStream(ctx, r.subjects.silentBucket(events.Config.Replicas))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was faster
		return fmt.Errorf("create stream %s: %w", name, explain(err))
	}
	r.silent.Store(true)
	return nil
}

// silentAgedOut calls f with the newest silent alert of each device, if that event
// aged out of the events stream.
func (r *Reader) silentAgedOut(ctx context.Context, mark Mark, f func(Stored)) error {
	return r.gone(ctx, r.subjects.SilentBucket(), mark, func(device string, m jetstream.Msg, at time.Time) {
		f(Stored{Kind: "alert", Device: device, Alert: SilentAlert, At: at, Header: m.Headers(), Body: m.Data()})
	})
}
