package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/publisher"
)

// Job is a replay or a purge.
type Job struct {
	Seqs   []uint64 // these letters; nil means all that Filter chooses
	Filter Filter   // of Seqs, too
	// DryRun only reports the letters, and those that would stay, as the streams are
	// now. It does not foresee that the inbound stream becomes full.
	DryRun bool
	Rate   float64 // letters a second; 0 means no limit
	// Each is called with every letter when it is done, or would be, and with
	// every letter that stays and the reason. Optional.
	Each func(Done)
}

// Done is the result of a job for one letter.
type Done struct {
	Letter Letter // of one that does not exist only Seq is known
	Err    error  // why the letter stays; nil if it does not
	// Sequence is that of a replayed message in the inbound stream.
	Sequence uint64
}

// Count is the number of letters of a job.
type Count struct {
	Done int
	Left int // letters that could not be done, and stay
}

// Replay puts letters back into the inbound stream, each to its first subject,
// and removes them. A letter that cannot go back stays, and the replay goes on
// with the next one. An error ends the replay; it can be repeated.
func (b *Box) Replay(ctx context.Context, job Job) (Count, error) {
	dry := dryRun{box: b, subjects: make(map[string]error)}
	return b.do(ctx, job, func(ctx context.Context, st jetstream.Stream, d *Done) error {
		l := &d.Letter
		if err := checkLetter(l); err != nil {
			return err
		}
		if job.DryRun {
			return dry.check(ctx, l)
		}
		seq, err := b.putBack(ctx, st, l)
		if err != nil {
			return fmt.Errorf("replay dead letter %d: %w", l.Seq, err)
		}
		d.Sequence = seq
		return b.remove(ctx, st, l.Seq)
	})
}

// putBack publishes a letter to the inbound stream. The headers that a replay
// adds may make a message too large that the stream accepted once: it then goes
// with fewer of them.
func (b *Box) putBack(ctx context.Context, st jetstream.Stream, l *Letter) (seq uint64, err error) {
	if err := b.checkSubject(ctx, l.Original); err != nil {
		return 0, err
	}
	m := l.replay(*st.CachedInfo(), b.subjects.Inbound())
	for _, fewer := range lighter {
		fewer(m)
		var ack *jetstream.PubAck
		if ack, err = b.js.PublishMsg(ctx, m); err == nil {
			return ack.Sequence, nil
		}
		if large, _ := publisher.TooLarge(err); !large {
			break
		}
	}
	return 0, err
}

// Purge removes letters for good.
func (b *Box) Purge(ctx context.Context, job Job) (Count, error) {
	return b.do(ctx, job, func(ctx context.Context, st jetstream.Stream, d *Done) error {
		if job.DryRun {
			return nil
		}
		return b.remove(ctx, st, d.Letter.Seq)
	})
}

// concernsOne reports whether an error concerns one letter only, so that the next one
// may succeed.
func concernsOne(err error) bool {
	_, refused := errors.AsType[*jetstream.APIError](err)
	return refused || errors.Is(err, ErrNotBack) || errors.Is(err, ErrNoLetter) || errors.Is(err, nats.ErrMaxPayload)
}

func (b *Box) do(ctx context.Context, job Job, one func(context.Context, jetstream.Stream, *Done) error) (n Count, err error) {
	st, err := b.stream(ctx)
	if err != nil {
		return n, err
	}
	pace := newPace(job.Rate)
	step := func(l Letter, err error) error {
		d := Done{Letter: l, Err: err}
		if err == nil {
			if err := pace.wait(ctx); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 4*requestTimeout)
			defer cancel()
			d.Err = one(ctx, st, &d)
		}
		switch {
		case d.Err == nil:
			n.Done++
		case concernsOne(d.Err):
			n.Left++
		default:
			return d.Err
		}
		if job.Each != nil {
			job.Each(d)
		}
		return nil
	}
	if job.Seqs == nil {
		err = b.each(ctx, st, job.Filter, func(l Letter) error { return step(l, nil) })
	} else {
		err = b.listed(ctx, st, job, step)
	}
	return n, err
}

// listed does the job for the letters in job.Seqs, in the order of the stream, because
// the messages of a device have to go back in their order.
func (b *Box) listed(ctx context.Context, st jetstream.Stream, job Job, step func(Letter, error) error) error {
	if err := job.Filter.Check(); err != nil {
		return err
	}
	seqs := slices.Compact(slices.Sorted(slices.Values(job.Seqs)))
	now := time.Now()
	for _, seq := range seqs {
		l, err := b.letter(ctx, st, seq)
		if err != nil && !errors.Is(err, ErrNoLetter) {
			return err
		}
		if err == nil && !job.Filter.match(&l, now) {
			continue
		}
		l.Seq = seq
		if err := step(l, err); err != nil {
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
		return nil // another process removed it
	}
	return fmt.Errorf("remove dead letter %d: %w", seq, err)
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
