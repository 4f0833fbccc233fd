package dlq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/inbound/deadletter"
	"plaspy-bridge/cmd/plaspy-bridge/internal/broker"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// Command returns the command dlq with its subcommands.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Inspect dead letters and put them back where they came from",
		Long: "Manages the inbound messages that the bridge could not post. SEQ is the sequence in the dead-letter\n" +
			"stream, as list shows it. Without NATS_URL it connects to the embedded server of a running bridge, on\n" +
			"BRIDGE_EMBEDDED_ADDR.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listCommand(), showCommand(), replayCommand(), purgeCommand())
	return cmd
}

func listCommand() *cobra.Command {
	var filter deadletter.Filter
	var list letterList
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, the oldest first",
		Args: cli.All(cobra.NoArgs, filtered(&filter), func(*cobra.Command, []string) error {
			if list.limit < 0 {
				return errors.New("--limit must not be negative")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list.out = cmd.OutOrStdout()
			return withBox(cmd.Context(), func(box *deadletter.Box) error {
				return list.print(func(f func(deadletter.Letter) error) error { return box.Each(cmd.Context(), filter, f) })
			})
		},
	}
	filterFlags(cmd, &filter)
	cmd.Flags().IntVar(&list.limit, "limit", 0, "show at most this many; 0 means no limit")
	cmd.Flags().BoolVar(&list.json, "json", false, "print a JSON array, one dead letter a line")
	return cmd
}

func showCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show SEQ",
		Short: "Show one dead letter in full",
		Args:  cli.All(oneSequence, sequences),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBox(cmd.Context(), func(box *deadletter.Box) error {
				l, err := box.Letter(cmd.Context(), parseSeqs(args)[0])
				if err != nil {
					return err
				}
				text := describe(&l)
				if asJSON {
					text = letterJSON(&l, true) + "\n"
				}
				_, err = io.WriteString(cmd.OutOrStdout(), text)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func replayCommand() *cobra.Command {
	var job deadletter.Job
	var everything bool
	report := jobReport{done: "replayed"}
	cmd := &cobra.Command{
		Use:   "replay SEQ...|--all",
		Short: "Put dead letters back into the inbound stream",
		Long: "Publishes dead letters to their inbound subjects again, oldest first, and removes each once the inbound\n" +
			"stream has accepted it. One that cannot be replayed is kept and reported, and the exit status is 1. An\n" +
			"interrupted replay can be repeated; after more than two minutes one message may be posted twice. With\n" +
			"--dry-run it changes nothing, and reports how many dead letters would be replayed and, with the reason and\n" +
			"status 1, which ones cannot be. It does not foresee that the stream fills up.",
		Args: cli.All(sequences, chosen(&everything), filtered(&job.Filter), func(*cobra.Command, []string) error {
			switch {
			case job.Rate < 0:
				return errors.New("--rate must not be negative")
			case report.patience <= 0:
				return errors.New("--timeout must be positive")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.Seqs = parseSeqs(args)
			return report.run(cmd, &job, (*deadletter.Box).Replay)
		},
	}
	jobFlags(cmd, &job, &everything)
	cmd.Flags().Float64Var(&job.Rate, "rate", 0, "dead letters a second; 0 means no limit")
	cmd.Flags().BoolVar(&report.wait, "wait", false, "wait for the results, and report the outcome of each message")
	cmd.Flags().DurationVar(&report.patience, "timeout", time.Minute, "with --wait: how long to wait for the results")
	return cmd
}

func purgeCommand() *cobra.Command {
	var job deadletter.Job
	var everything, yes bool
	cmd := &cobra.Command{
		Use:   "purge SEQ...|--all --yes",
		Short: "Remove dead letters permanently",
		Args: cli.All(sequences, chosen(&everything), filtered(&job.Filter), func(*cobra.Command, []string) error {
			if everything && !yes && !job.DryRun {
				return errors.New("purge --all removes dead letters permanently: add --yes, or --dry-run to list them")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.Seqs = parseSeqs(args)
			report := jobReport{done: "purged"}
			return report.run(cmd, &job, (*deadletter.Box).Purge)
		},
	}
	jobFlags(cmd, &job, &everything)
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: confirm")
	return cmd
}

func filterFlags(cmd *cobra.Command, f *deadletter.Filter) {
	flags := cmd.Flags()
	flags.StringVar(&f.Device, "device", "", "only dead letters of this device id")
	flags.StringVar((*string)(&f.Kind), "kind", "", "only this kind: location, alert or unknown")
	flags.StringVar(&f.Reason, "reason", "", "only dead letters with this text in their reason")
	flags.DurationVar(&f.OlderThan, "older-than", 0, "only dead letters at least this old, such as 24h")
}

func jobFlags(cmd *cobra.Command, job *deadletter.Job, everything *bool) {
	filterFlags(cmd, &job.Filter)
	cmd.Flags().BoolVar(everything, "all", false, "all dead letters that match the filters")
	cmd.Flags().BoolVar(&job.DryRun, "dry-run", false, "only list the dead letters that would be affected")
}

func oneSequence(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected one SEQ, got %d", len(args))
	}
	return nil
}

func filtered(f *deadletter.Filter) cobra.PositionalArgs {
	return func(*cobra.Command, []string) error { return f.Check() }
}

// chosen requires either sequences or --all.
func chosen(everything *bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if (len(args) > 0) == *everything {
			return errors.New("give one SEQ or more, or --all")
		}
		return nil
	}
}

func sequences(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if n, err := strconv.ParseUint(arg, 10, 64); err != nil || n == 0 {
			return fmt.Errorf("%q is not a sequence number", arg)
		}
	}
	return nil
}

// parseSeqs reads arguments that sequences has checked. It returns nil for none.
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

// withBox calls f with the dead letters of the bridge that the environment
// describes.
func withBox(ctx context.Context, f func(*deadletter.Box) error) error {
	return broker.With(ctx, "dlq", func(cfg config.Config, js jetstream.JetStream) error {
		return f(deadletter.Open(js, publisher.Subjects(cfg.Prefix)))
	})
}
