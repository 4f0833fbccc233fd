package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/inbound/message"
	"plaspy-bridge/publisher"
)

// ErrNoLetter tells that there is no letter with a sequence.
var ErrNoLetter = errors.New("no such dead letter")

// ErrNotBack tells that a letter cannot go back to the inbound stream.
var ErrNotBack = errors.New("letter cannot be replayed")

// requestTimeout is how long one request to the server may take.
const requestTimeout = 5 * time.Second

// Box is the stream of dead letters. It is safe for concurrent use.
type Box struct {
	js       jetstream.JetStream
	subjects publisher.Subjects
}

// Open makes a box on the stream of a bridge. It asks the server nothing.
func Open(js jetstream.JetStream, subjects publisher.Subjects) *Box {
	return &Box{js: js, subjects: subjects}
}

// Each calls f with the letters that a filter chooses, in the order in which
// they died, up to the last one that was there when it began. An error of f
// ends it and is returned as it is.
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
	for {
		msg, err := it.Next(jetstream.NextMaxWait(requestTimeout))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		if meta.Sequence.Stream > last {
			return nil // it died since
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

// filters are the subjects that a filter's letters have: the server leaves the
// others out.
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

// Letter reads one letter; the error wraps [ErrNoLetter] where there is none.
func (b *Box) Letter(ctx context.Context, seq uint64) (Letter, error) {
	st, err := b.stream(ctx)
	if err != nil {
		return Letter{}, err
	}
	return b.letter(ctx, st, seq)
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
		m.Header.Del(name) // a direct get adds them
	}
	return read(b.subjects, m.Sequence, m.Time, m.Subject, m.Header, m.Data), nil
}

// Job is a replay or a purge.
type Job struct {
	Seqs   []uint64 // these letters; nil: all that Filter chooses
	Filter Filter   // of Seqs, too
	DryRun bool     // only say what would be done
	Rate   float64  // letters a second; 0: as fast as it goes
	// Each is called with every letter when it is done, or would be. Nil: nobody.
	Each func(Letter)
}

// Replay puts letters back into the inbound stream, each to where it came from,
// and removes them. It returns how many. An error ends it; what is not done yet
// is still a letter, and the replay can be repeated.
func (b *Box) Replay(ctx context.Context, job Job) (int, error) {
	return b.do(ctx, job, func(ctx context.Context, st jetstream.Stream, l *Letter) error {
		if l.Truncated {
			return fmt.Errorf("%w: %d has only a part of its body", ErrNotBack, l.Seq)
		}
		if l.Original == "" {
			return fmt.Errorf("%w: %d does not tell where it came from", ErrNotBack, l.Seq)
		}
		if job.DryRun {
			return nil
		}
		m := l.replay(*st.CachedInfo(), b.subjects.Inbound())
		// A subject that another stream takes would be accepted, and lost.
		_, err := b.js.PublishMsg(ctx, m, jetstream.WithExpectStream(b.subjects.Inbound()))
		if err != nil {
			return fmt.Errorf("replay dead letter %d: %w", l.Seq, err)
		}
		return b.remove(ctx, st, l.Seq)
	})
}

// Purge removes letters for good and returns how many.
func (b *Box) Purge(ctx context.Context, job Job) (int, error) {
	return b.do(ctx, job, func(ctx context.Context, st jetstream.Stream, l *Letter) error {
		if job.DryRun {
			return nil
		}
		return b.remove(ctx, st, l.Seq)
	})
}

func (b *Box) do(ctx context.Context, job Job, one func(context.Context, jetstream.Stream, *Letter) error) (int, error) {
	st, err := b.stream(ctx)
	if err != nil {
		return 0, err
	}
	done := 0
	pace := newPace(job.Rate)
	step := func(l Letter) error {
		if err := pace.wait(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
		defer cancel()
		if err := one(ctx, st, &l); err != nil {
			return err
		}
		done++
		if job.Each != nil {
			job.Each(l)
		}
		return nil
	}
	if job.Seqs == nil {
		err = b.each(ctx, st, job.Filter, step)
	} else {
		err = b.listed(ctx, st, job, step)
	}
	return done, err
}

// listed does the letters that were named, in the order of the stream: a device's
// messages have to go back in theirs.
func (b *Box) listed(ctx context.Context, st jetstream.Stream, job Job, step func(Letter) error) error {
	if err := job.Filter.Check(); err != nil {
		return err
	}
	seqs := slices.Compact(slices.Sorted(slices.Values(job.Seqs)))
	now := time.Now()
	for _, seq := range seqs {
		l, err := b.letter(ctx, st, seq)
		if err != nil {
			return err
		}
		if !job.Filter.match(&l, now) {
			continue
		}
		if err := step(l); err != nil {
			return err
		}
	}
	return nil
}

func (b *Box) remove(ctx context.Context, st jetstream.Stream, seq uint64) error {
	err := st.DeleteMsg(ctx, seq)
	if err == nil {
		return nil
	}
	if _, getErr := b.letter(ctx, st, seq); errors.Is(getErr, ErrNoLetter) {
		return nil // somebody else removed it
	}
	return fmt.Errorf("remove dead letter %d: %w", seq, err)
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

// pace spaces letters evenly.
type pace struct {
	gap  time.Duration
	next time.Time
}

func newPace(perSecond float64) *pace {
	if perSecond <= 0 {
		return &pace{}
	}
	return &pace{gap: time.Duration(float64(time.Second) / perSecond)}
}

func (p *pace) wait(ctx context.Context) error {
	if p.gap == 0 {
		return context.Cause(ctx)
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	d := p.next.Sub(now)
	p.next = p.next.Add(p.gap)
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
