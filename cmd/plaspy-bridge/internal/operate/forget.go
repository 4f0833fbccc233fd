package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/forget"
	"plaspy-bridge/cmd/plaspy-bridge/internal/broker"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// ForgetCommand returns the command forget.
func ForgetCommand() *cobra.Command {
	var undo, list, inbound bool
	cmd := &cobra.Command{
		Use:   "forget DEVICE",
		Short: "Erase a device and keep it from being published",
		Long: "Removes a device's events, last position, results, dead letters and live control from the streams, and\n" +
			"keeps every replica from polling it until forget --undo DEVICE. With --inbound it also removes messages that\n" +
			"wait to be posted; without it they are posted, and the command says how many there are. Stop the device's\n" +
			"gateway first: the message in flight and later ones are posted, and their results kept. The NATS user must be allowed to purge\n" +
			"the streams, which the bridge's own user must not.",
		Args: func(cmd *cobra.Command, args []string) error {
			if list {
				return cobra.NoArgs(cmd, args)
			}
			return cli.OneDevice(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStreams(cmd.Context(), func(ctx context.Context, js jetstream.JetStream, subjects publisher.Subjects) error {
				switch out := cmd.OutOrStdout(); {
				case list:
					return listForgotten(ctx, out, js, subjects)
				case undo:
					return undoForget(ctx, out, js, subjects, args[0])
				default:
					return forgetDevice(ctx, out, js, subjects, args[0], inbound)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "publish the device again; removed messages stay removed")
	cmd.Flags().BoolVar(&inbound, "inbound", false, "also remove messages that wait to be posted")
	cmd.Flags().BoolVar(&list, "list", false, "list the forgotten devices")
	cmd.MarkFlagsMutuallyExclusive("undo", "list", "inbound")
	return cmd
}

func forgetDevice(ctx context.Context, w io.Writer, js jetstream.JetStream, subjects publisher.Subjects, id string, inbound bool) error {
	const pause = 1500 * time.Millisecond // longer than replicas take to notice, and than most polls
	removed, err := forget.Erase(ctx, js, subjects, id, forget.Options{Inbound: inbound, Pause: pause})
	for _, stream := range slices.Sorted(maps.Keys(removed)) {
		_, _ = fmt.Fprintf(w, "%d removed from %s\n", removed[stream], stream) // the last write returns the error
	}
	if err != nil {
		return err
	}
	waiting, err := forget.Waiting(ctx, js, subjects, id)
	if err != nil {
		return err
	}
	if waiting > 0 {
		_, _ = fmt.Fprintf(w, "%d still in %s, to be posted; forget --inbound removes them\n", waiting, subjects.Inbound())
	}
	_, err = fmt.Fprintf(w, "%s is forgotten; plaspy-bridge forget --undo lets it be published again\n", cli.Shown(id))
	return err
}

func undoForget(ctx context.Context, w io.Writer, js jetstream.JetStream, subjects publisher.Subjects, id string) error {
	known, err := forget.Undo(ctx, js, subjects, id)
	if err != nil {
		return err
	}
	if !known {
		return errors.New("the device was not forgotten")
	}
	_, err = fmt.Fprintf(w, "%s is published again\n", cli.Shown(id))
	return err
}

func listForgotten(ctx context.Context, w io.Writer, js jetstream.JetStream, subjects publisher.Subjects) error {
	ids, err := forget.Devices(ctx, js, subjects)
	for _, id := range ids {
		if err == nil {
			_, err = fmt.Fprintln(w, cli.Shown(id))
		}
	}
	return err
}

// withStreams calls f with the streams of the bridge that the environment
// describes, for at most a minute.
func withStreams(ctx context.Context, f func(context.Context, jetstream.JetStream, publisher.Subjects) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return broker.With(ctx, "forget", func(cfg config.Config, js jetstream.JetStream) error {
		return f(ctx, js, publisher.Subjects(cfg.Prefix))
	})
}
