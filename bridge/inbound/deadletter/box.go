package deadletter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// ErrNoLetter is wrapped by the error for a sequence that no letter has.
var ErrNoLetter = errors.New("no such dead letter")

// ErrNotBack is wrapped by the error for a letter that cannot go back to the
// inbound stream.
var ErrNotBack = errors.New("dead letter cannot be replayed")

const (
	requestTimeout = 5 * time.Second // the longest that one request to the server may take
	waitEach       = time.Second     // after which it is checked that there are more letters
)

// Box is the dead-letter stream. It is safe for concurrent use.
type Box struct {
	js       jetstream.JetStream
	subjects publisher.Subjects
}

// Open makes a box on the stream of a bridge. It asks the server nothing.
func Open(js jetstream.JetStream, subjects publisher.Subjects) *Box {
	return &Box{js: js, subjects: subjects}
}

// Each calls f with the letters that a filter chooses, the oldest first, up to the last
// one that was stored when Each was called. It stops at an error of f, and returns it
// unchanged.
func (b *Box) Each(ctx context.Context, filter Filter, f func(Letter) error) error {
	st, err := b.stream(ctx)
	if err != nil {
		return err
	}
	return b.each(ctx, st, filter, f)
}

func (b *Box) each(ctx context.Context, st jetstream.Stream, filter Filter, f func(Letter) error) error {
	if err := filter.Check(); err != nil {
		return err
	}
	last := st.CachedInfo().State.LastSeq
	if st.CachedInfo().State.Msgs == 0 {
		return nil
	}
	c, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: b.filters(filter)})
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	if c.CachedInfo().NumPending == 0 {
		return nil
	}
	it, err := c.Messages(jetstream.PullMaxMessages(100))
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	now := time.Now()
	instance, received, silent := "", uint64(0), time.Duration(0)
	for {
		msg, err := it.Next(jetstream.NextMaxWait(waitEach))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, nats.ErrTimeout) {
			// The last letters may have been removed since, or be on their way.
			info, infoErr := c.Info(ctx)
			if infoErr == nil && info.NumPending == 0 && (info.Delivered.Consumer == 0 || info.Name == instance && info.Delivered.Consumer == received) {
				return nil
			}
			if silent += waitEach; silent <= requestTimeout {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		instance, received, silent = meta.Consumer, meta.Sequence.Consumer, 0
		if meta.Sequence.Stream > last {
			return nil // it was stored since
		}
		l := read(b.subjects, meta.Sequence.Stream, meta.Timestamp, msg.Subject(), msg.Headers(), msg.Data())
		if filter.match(&l, now) {
			if err := f(l); err != nil {
				return err
			}
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}

// filters returns the subjects that a filter's letters can have, so that the server sends
// no others.
func (b *Box) filters(f Filter) []string {
	token := "*"
	if f.Device != "" {
		token = publisher.Encode(f.Device)
	}
	kinds := []message.Kind{message.Location, message.Alert}
	switch f.Kind {
	case message.Location, message.Alert:
		kinds = []message.Kind{f.Kind}
	case message.Unknown:
		return []string{b.subjects.DeadLetterUnknown()}
	}
	var list []string
	for _, kind := range kinds {
		list = append(list, b.subjects.DeadLetter(string(kind), token))
	}
	if f.Kind == "" && f.Device == "" {
		list = append(list, b.subjects.DeadLetterUnknown())
	}
	return list
}

// Letter reads one letter; the error wraps [ErrNoLetter] if there is none.
func (b *Box) Letter(ctx context.Context, seq uint64) (Letter, error) {
	st, err := b.stream(ctx)
	if err != nil {
		return Letter{}, err
	}
	return b.letter(ctx, st, seq)
}

// Newest returns at most limit letters, the newest first, or none if there is no stream.
// It reads backwards from the last one. Replayed and purged letters leave gaps, so the
// number of reads is limited too.
func (b *Box) Newest(ctx context.Context, limit int) ([]Letter, error) {
	st, err := b.stream(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state := st.CachedInfo().State
	var list []Letter
	seq := state.LastSeq
	for tries := 4 * limit; tries > 0 && len(list) < min(limit, int(state.Msgs)) && seq >= max(state.FirstSeq, 1); seq-- {
		tries--
		l, err := b.letter(ctx, st, seq)
		if errors.Is(err, ErrNoLetter) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (b *Box) letter(ctx context.Context, st jetstream.Stream, seq uint64) (Letter, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := st.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Letter{}, fmt.Errorf("%w: %d", ErrNoLetter, seq)
	}
	if err != nil {
		return Letter{}, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	for _, name := range [...]string{jetstream.StreamHeader, jetstream.SequenceHeader, jetstream.TimeStampHeaer, jetstream.SubjectHeader, jetstream.LastSequenceHeader} {
		m.Header.Del(name) // a direct get adds it
	}
	return read(b.subjects, m.Sequence, m.Time, m.Subject, m.Header, m.Data), nil
}

func (b *Box) stream(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := b.js.Stream(ctx, b.subjects.DeadLetters())
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", b.subjects.DeadLetters(), err)
	}
	return st, nil
}
