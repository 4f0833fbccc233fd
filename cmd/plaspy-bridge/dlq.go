package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/publisher"
)

func dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Inspect dead letters and put them back where they came from",
		Long: "Looks after the inbound messages that the bridge gave up. SEQ is the sequence in the stream of dead\n" +
			"letters, as list shows it. Without NATS_URL it talks to the embedded server of a running bridge, on\n" +
			"BRIDGE_EMBEDDED_ADDR.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(dlqListCommand(), dlqShowCommand(), dlqReplayCommand(), dlqPurgeCommand())
	return cmd
}

func dlqListCommand() *cobra.Command {
	var filter deadletter.Filter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the oldest first",
		Args:  all(cobra.NoArgs, filtered(&filter)),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBox(cmd.Context(), func(box *deadletter.Box) error {
				return listLetters(cmd.Context(), cmd.OutOrStdout(), box, filter)
			})
		},
	}
	filterFlags(cmd, &filter)
	return cmd
}

func dlqShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show SEQ",
		Short: "Show one dead letter whole",
		Args:  all(cobra.ExactArgs(1), sequences),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBox(cmd.Context(), func(box *deadletter.Box) error {
				l, err := box.Letter(cmd.Context(), parseSeqs(args)[0])
				if err != nil {
					return err
				}
				_, err = io.WriteString(cmd.OutOrStdout(), describe(&l))
				return err
			})
		},
	}
}

func dlqReplayCommand() *cobra.Command {
	var job deadletter.Job
	var everything bool
	cmd := &cobra.Command{
		Use:   "replay SEQ...|--all",
		Short: "Put dead letters back into the inbound stream",
		Long: "Puts dead letters back where they came from, in the order in which they died, and removes each once\n" +
			"the inbound stream has accepted it. What was cut off can be repeated.",
		Args: all(sequences, chosen(&everything), filtered(&job.Filter), func(*cobra.Command, []string) error {
			if job.Rate < 0 {
				return errors.New("--rate must not be negative")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.Seqs = parseSeqs(args)
			return runJob(cmd, &job, "replayed", (*deadletter.Box).Replay)
		},
	}
	jobFlags(cmd, &job, &everything)
	cmd.Flags().Float64Var(&job.Rate, "rate", 0, "letters a second; 0: as fast as it goes")
	return cmd
}

func dlqPurgeCommand() *cobra.Command {
	var job deadletter.Job
	var everything, yes bool
	cmd := &cobra.Command{
		Use:   "purge SEQ...|--all --yes",
		Short: "Remove dead letters for good",
		Args: all(sequences, chosen(&everything), filtered(&job.Filter), func(*cobra.Command, []string) error {
			if everything && !yes && !job.DryRun {
				return errors.New("purge --all removes letters for good: say --yes, or --dry-run to see which")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.Seqs = parseSeqs(args)
			return runJob(cmd, &job, "purged", (*deadletter.Box).Purge)
		},
	}
	jobFlags(cmd, &job, &everything)
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: really")
	return cmd
}

func filterFlags(cmd *cobra.Command, f *deadletter.Filter) {
	flags := cmd.Flags()
	flags.StringVar(&f.Device, "device", "", "only this device's, by its id")
	flags.StringVar((*string)(&f.Kind), "kind", "", "only these: location, alert or unknown")
	flags.StringVar(&f.Reason, "reason", "", "only those whose reason contains this")
	flags.DurationVar(&f.OlderThan, "older-than", 0, "only those that died at least this long ago, such as 24h")
}

func jobFlags(cmd *cobra.Command, job *deadletter.Job, everything *bool) {
	filterFlags(cmd, &job.Filter)
	cmd.Flags().BoolVar(everything, "all", false, "all letters that the filters choose")
	cmd.Flags().BoolVar(&job.DryRun, "dry-run", false, "only show what would be done")
}

// all checks a command line with each of several checks.
func all(checks ...cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for _, check := range checks {
			if err := check(cmd, args); err != nil {
				return err
			}
		}
		return nil
	}
}

func filtered(f *deadletter.Filter) cobra.PositionalArgs {
	return func(*cobra.Command, []string) error { return f.Check() }
}

// chosen wants letters by number or all of them, and not both.
func chosen(everything *bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if (len(args) > 0) == *everything {
			return errors.New("name the letters by SEQ, or all of them with --all")
		}
		return nil
	}
}

func sequences(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if n, err := strconv.ParseUint(arg, 10, 64); err != nil || n == 0 {
			return fmt.Errorf("%q is not the sequence of a letter", arg)
		}
	}
	return nil
}

// parseSeqs reads what sequences has checked; nil for none.
func parseSeqs(args []string) []uint64 {
	var seqs []uint64
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err == nil {
			seqs = append(seqs, n)
		}
	}
	return seqs
}

// runJob does a job and tells about it: each letter of a dry run on stdout, the
// progress of a long one on stderr, the sum at the end.
func runJob(cmd *cobra.Command, job *deadletter.Job, done string, do func(*deadletter.Box, context.Context, deadletter.Job) (int, error)) error {
	out, progress := cmd.OutOrStdout(), cmd.ErrOrStderr()
	count, told := 0, time.Now()
	var broken error
	job.Each = func(l deadletter.Letter) {
		count++
		if job.DryRun {
			_, broken = fmt.Fprintf(out, "%d\t%s\t%s\t%s\n", l.Seq, l.Kind, shown(l.Device), l.Reason)
		} else if time.Since(told) >= time.Second {
			told = time.Now()
			_, _ = fmt.Fprintf(progress, "%d %s, at letter %d\n", count, done, l.Seq)
		}
	}
	return withBox(cmd.Context(), func(box *deadletter.Box) error {
		n, err := do(box, cmd.Context(), *job)
		if job.DryRun {
			done = "would be " + done
		}
		if _, printErr := fmt.Fprintf(out, "%d %s\n", n, done); printErr != nil {
			broken = printErr
		}
		return errors.Join(err, broken)
	})
}

// withBox calls f with the dead letters of the bridge that the environment
// describes.
func withBox(ctx context.Context, f func(*deadletter.Box) error) error {
	cfg, _, err := config.Load("PLASPY_", "OTEL_")
	if err != nil {
		return err
	}
	conn, err := connectNATS(ctx, cfg)
	if err != nil {
		return failure{err}
	}
	defer func() { _ = conn.Shut(time.Second) }() // every request was answered, or told of
	js, err := conn.OpenJetStream()
	if err != nil {
		return failure{fmt.Errorf("open JetStream: %w", err)}
	}
	if err := f(deadletter.Open(js, publisher.Subjects(cfg.Prefix))); err != nil {
		return failure{err}
	}
	return nil
}

// connectNATS connects as the bridge does, but gives up.
func connectNATS(ctx context.Context, c config.Config) (*publisher.Conn, error) {
	const patience = 5 * time.Second
	up := make(chan struct{}, 1)
	o := c.ConnOptions("plaspy-bridge dlq")
	o.OnConnect = func(bool) {
		select {
		case up <- struct{}{}:
		default:
		}
	}
	if c.Embedded() {
		var err error
		if o.URL, err = c.EmbeddedOptions().URL(); err != nil {
			return nil, err
		}
	}
	conn, err := publisher.Connect(o, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-up:
		return conn, nil
	case <-timer.C:
		err = errors.New(conn.Trouble())
		if last := conn.LastError(); last != nil {
			err = fmt.Errorf("%w: %w", err, last)
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = conn.Shut(0)
	return nil, err
}

func listLetters(ctx context.Context, out io.Writer, box *deadletter.Box, filter deadletter.Filter) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	n := 0
	err := box.Each(ctx, filter, func(l deadletter.Letter) error {
		if n == 0 {
			_, _ = fmt.Fprintln(w, "SEQ\tDIED\tKIND\tDEVICE\tSTATUS\tTRIES\tREASON")
		}
		n++
		_, err := fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Seq, l.At.UTC().Format(time.RFC3339), l.Kind, shown(l.Device), or(l.Status), l.Attempts, l.Reason)
		if n%200 == 0 {
			err = errors.Join(err, w.Flush()) // what is aligned is held in memory
		}
		return err
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d dead letters\n", n)
	return err
}

// describe writes a letter for a person: what happened, the message's own
// headers, its body.
func describe(l *deadletter.Letter) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s %s\n", name, value)
		}
	}
	line("letter", strconv.FormatUint(l.Seq, 10))
	line("died", l.At.UTC().Format(publisher.TimeFormat))
	line("reason", l.Reason)
	line("error", l.Error)
	line("status", l.Status)
	line("tries", strconv.Itoa(l.Attempts))
	line("first try", l.FirstTry)
	line("last try", l.LastTry)
	line("device", shown(l.Device))
	line("from", fmt.Sprintf("%s, sequence %d", l.Original, l.Sequence))
	for _, h := range l.History {
		line("before", h)
	}
	names := make([]string, 0, len(l.Header))
	for name := range l.Header {
		if !deadletter.Described(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range l.Header[name] {
			line("header", shown(name+": "+value))
		}
	}
	fmt.Fprintf(&b, "%d bytes:\n", len(l.Body))
	body := string(l.Body)
	if strings.ContainsFunc(body, func(r rune) bool {
		return r == unicode.ReplacementChar || !unicode.IsPrint(r) && !unicode.IsSpace(r)
	}) {
		body = strconv.Quote(body)
	}
	b.WriteString(strings.TrimRight(body, "\n"))
	b.WriteByte('\n')
	return b.String()
}

// shown keeps what a stranger wrote from steering the terminal.
func shown(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return or(s)
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
