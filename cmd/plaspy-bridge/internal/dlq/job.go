package dlq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
)

// jobReport runs a job and reports on it. The letters of a dry run, the results
// of --wait and the total go to stdout; progress and failures go to stderr.
type jobReport struct {
	done     string // the job's past participle
	wait     bool   // for the results of replayed messages
	patience time.Duration

	out, progress io.Writer
	count         int
	last          time.Time // of the last line of progress
	broken        error     // of stdout
	back          []deadletter.Done
}

func (r *jobReport) run(cmd *cobra.Command, job *deadletter.Job, do func(*deadletter.Box, context.Context, deadletter.Job) (deadletter.Count, error)) error {
	r.out, r.progress, r.last = cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now()
	job.Each = func(d deadletter.Done) { r.letter(d, job.DryRun) }
	return withBox(cmd.Context(), func(box *deadletter.Box) error {
		var results *deadletter.Results
		if r.wait && !job.DryRun {
			var err error
			if results, err = box.Results(cmd.Context()); err != nil {
				return err
			}
			defer results.Close()
		}
		n, err := do(box, cmd.Context(), *job)
		r.total(n, job.DryRun)
		if n.Left > 0 && err == nil {
			could := map[bool]string{true: "cannot", false: "could not"}[job.DryRun]
			err = fmt.Errorf("%s %s be %s", letters(n.Left), could, r.done)
		}
		if results != nil {
			err = errors.Join(err, r.await(cmd.Context(), results))
		}
		return errors.Join(err, r.broken)
	})
}

func (r *jobReport) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(r.out, format, args...); err != nil {
		r.broken = err
	}
}

// total prints the sum of the job.
func (r *jobReport) total(n deadletter.Count, dry bool) {
	switch {
	case dry && n.Left > 0:
		r.printf("%d would be %s, %d cannot be %s\n", n.Done, r.done, n.Left, r.done)
	case dry:
		r.printf("%d would be %s\n", n.Done, r.done)
	case n.Left > 0:
		r.printf("%d %s, %d left\n", n.Done, r.done, n.Left)
	default:
		r.printf("%d %s\n", n.Done, r.done)
	}
}

// letter reports one letter.
func (r *jobReport) letter(d deadletter.Done, dry bool) {
	l := d.Letter
	if d.Err != nil {
		kept := map[bool]string{true: "would be", false: "is"}[dry]
		_, _ = fmt.Fprintf(r.progress, "dead letter %d %s kept: %s\n", l.Seq, kept, cli.Shown(d.Err.Error()))
		return
	}
	r.count++
	if r.wait {
		r.back = append(r.back, d)
	}
	if dry {
		r.printf("%d\t%s\t%s\t%s\n", l.Seq, l.Kind, cli.Shown(l.Device), cli.Shown(l.Reason))
	} else if time.Since(r.last) >= time.Second {
		r.last = time.Now()
		_, _ = fmt.Fprintf(r.progress, "%d %s, at dead letter %d\n", r.count, r.done, l.Seq)
	}
}

// await reports the outcome of each replayed message.
func (r *jobReport) await(ctx context.Context, results *deadletter.Results) error {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	undecided, refused := 0, 0
	for _, d := range r.back {
		if d.Letter.Kind == deadletter.Unknown {
			r.printf("%d\thas no result, because its subject names no device\n", d.Letter.Seq)
			continue
		}
		fate, known, err := results.Await(ctx, d.Sequence)
		switch {
		case err != nil:
			return err
		case !known:
			undecided++
			r.printf("%d\tnot decided yet, it is message %d of the inbound stream\n", d.Letter.Seq, d.Sequence)
		case fate.Posted:
			r.printf("%d\tposted with status %d\n", d.Letter.Seq, fate.Status)
		default:
			refused++
			r.printf("%d\tis dead letter %d now: %s: %s\n", d.Letter.Seq, fate.DeadLetter, cli.Shown(fate.Reason), cli.Shown(sentence(fate.Reason, fate.Error)))
		}
	}
	if undecided+refused > 0 {
		return fmt.Errorf("of %d replayed messages %d became dead letters again, %d are not decided", len(r.back), refused, undecided)
	}
	return nil
}
