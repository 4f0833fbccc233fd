package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/control"
	"plaspy-bridge/cmd/plaspy-bridge/internal/broker"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// ControlCommand returns the command control with its subcommands.
func ControlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Change at run time which devices are polled and how often",
		Long: "Writes to the key-value bucket of live control, which all replicas follow within a second. A device's entry\n" +
			"comes before those of its groups, and these before the fleet's, field by field. Without NATS_URL it talks to\n" +
			"the embedded server of a running bridge, on BRIDGE_EMBEDDED_ADDR.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(controlListCommand(), controlSetCommand(), controlClearCommand())
	return cmd
}

func controlListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all entries, also those that have ended or cannot be read",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withControl(cmd.Context(), func(cfg config.Config, b *control.Bucket) error {
				items, err := b.Items(cmd.Context())
				if err != nil {
					return err
				}
				return printEntries(cmd.OutOrStdout(), time.Now(), items, cfg.RateLimit)
			})
		},
	}
}

// target selects the entry.
const target = "device NAME|group NAME|fleet"

func controlSetCommand() *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "set " + target,
		Short: "Set an entry, in place of the one that is there",
		Long: "Sets what is given and nothing else: an earlier entry of the same device, group or fleet is replaced. NAME is the\n" +
			"device's id, or the group's id or name. PLASPY_RATE_LIMIT stays the highest rate, whatever --rate-limit says.",
		Example: "  plaspy-bridge control set device truck-7 --interval 5s --for 1h\n" +
			"  plaspy-bridge control set group Reserve --pause\n" +
			"  plaspy-bridge control set fleet --rate-limit 300 --log-level debug --for 30m",
		Args: cli.All(targeted, func(cmd *cobra.Command, args []string) error { return w.check(cmd, keyOf(args)) }),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := keyOf(args)
			e := w.entry(cmd, time.Now())
			return withControl(cmd.Context(), func(cfg config.Config, b *control.Bucket) error {
				if err := b.Set(cmd.Context(), key, e); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", control.Title(key), e.Describe())
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&w.interval, "interval", 0, "longest time between two polls of a device, such as 5s (at least 100ms)")
	flags.Float64Var(&w.weight, "weight", 0, "weight of the device's delay (0.1 to 64); other devices have 1")
	flags.BoolVar(&w.pause, "pause", false, "do not poll; --pause=false exempts a device or group from a wider entry")
	flags.DurationVar(&w.duration, "for", 0, "the entry ends after this time, such as 1h")
	flags.IntVar(&w.rate, "rate-limit", 0, "fleet only: requests a minute of all replicas together")
	flags.StringVar(&w.level, "log-level", "", "fleet only: debug, info, warn or error")
	flags.StringVar(&w.devices, "devices", "", "fleet only: ids or globs, comma separated, instead of BRIDGE_DEVICES; empty means all devices")
	flags.StringVar(&w.exclude, "devices-exclude", "", "fleet only: ids or globs, comma separated, instead of BRIDGE_DEVICES_EXCLUDE")
	return cmd
}

func controlClearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear " + target,
		Short: "Remove an entry, so that wider entries and the environment hold again",
		Args:  targeted,
		RunE: func(cmd *cobra.Command, args []string) error {
			key := keyOf(args)
			return withControl(cmd.Context(), func(cfg config.Config, b *control.Bucket) error {
				there, err := b.Clear(cmd.Context(), key)
				if err != nil {
					return err
				}
				said := "cleared"
				if !there {
					said = "has no entry"
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", control.Title(key), said)
				return err
			})
		},
	}
}

// targeted checks the target of an entry.
func targeted(_ *cobra.Command, args []string) error {
	want := errors.New("expected " + target)
	switch {
	case len(args) == 0:
		return want
	case args[0] == "fleet":
		if len(args) > 1 {
			return errors.New("fleet takes no name")
		}
	case args[0] != "device" && args[0] != "group":
		return fmt.Errorf("%q is none of device, group and fleet", args[0])
	case len(args) != 2:
		return want
	default:
		if _, err := publisher.Token(args[1]); err != nil {
			return fmt.Errorf("the name of a %s: %w", args[0], err)
		}
	}
	return nil
}

// keyOf returns the key of a target that targeted has checked.
func keyOf(args []string) string {
	switch args[0] {
	case "device":
		return control.DeviceKey(args[1])
	case "group":
		return control.GroupKey(args[1])
	default:
		return control.FleetKey
	}
}

// wish holds the values of the flags.
type wish struct {
	interval, duration time.Duration
	weight             float64
	pause              bool
	rate               int
	level              string
	devices, exclude   string
}

// fleetFlags are of the fleet only.
var fleetFlags = []string{"rate-limit", "log-level", "devices", "devices-exclude"}

// check returns an error for flags that do not make an entry of that key.
func (w *wish) check(cmd *cobra.Command, key string) error {
	flags := cmd.Flags()
	set := 0
	for _, name := range []string{"interval", "weight", "pause", "rate-limit", "log-level", "devices", "devices-exclude"} {
		if !flags.Changed(name) {
			continue
		}
		set++
		if key != control.FleetKey && slices.Contains(fleetFlags, name) {
			return fmt.Errorf("--%s is for the fleet only", name)
		}
	}
	var level slog.Level
	switch {
	case set == 0:
		return errors.New("nothing to set: say --interval, --weight or --pause, for the fleet also --" + strings.Join(fleetFlags, ", --"))
	case flags.Changed("for") && w.duration <= 0:
		return errors.New("--for must be positive")
	case flags.Changed("interval") && w.interval == 0, flags.Changed("weight") && !(w.weight > 0), flags.Changed("rate-limit") && w.rate == 0:
		return errors.New("--interval, --weight and --rate-limit must be positive; control clear removes an entry")
	case math.IsInf(w.weight, 0):
		return errors.New("--weight: expected a number, 0.1 to 64")
	case flags.Changed("log-level") && level.UnmarshalText([]byte(w.level)) != nil:
		return errors.New("--log-level: expected debug, info, warn or error")
	}
	e := w.entry(cmd, time.Now())
	if _, err := control.Parse(key, e.Encode()); err != nil {
		return err
	}
	return nil
}

// entry returns the entry that the flags ask for.
func (w *wish) entry(cmd *cobra.Command, now time.Time) control.Entry {
	flags := cmd.Flags()
	e := control.Entry{Interval: w.interval, Weight: w.weight, RateLimit: w.rate, SetBy: whoami()}
	if flags.Changed("pause") {
		e.Paused = &w.pause
	}
	if w.duration > 0 {
		e.Until = now.Add(w.duration).UTC().Truncate(time.Millisecond)
	}
	var level slog.Level
	if w.level != "" && level.UnmarshalText([]byte(w.level)) == nil {
		e.LogLevel = &level
	}
	if flags.Changed("devices") {
		e.Devices = patterns(w.devices)
	}
	if flags.Changed("devices-exclude") {
		e.Exclude = patterns(w.exclude)
	}
	return e
}

// patterns splits a list. It is never nil.
func patterns(text string) []string {
	list := []string{}
	for pattern := range strings.SplitSeq(text, ",") {
		if pattern = strings.TrimSpace(pattern); pattern != "" {
			list = append(list, pattern)
		}
	}
	return list
}

// whoami returns the user and the machine. NATS does not pass on the user of a
// message's publisher.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// withControl calls f with the bucket of the bridge that the environment
// describes.
func withControl(ctx context.Context, f func(config.Config, *control.Bucket) error) error {
	return broker.With(ctx, "control", func(cfg config.Config, js jetstream.JetStream) error {
		return f(cfg, control.Open(js, publisher.Subjects(cfg.Prefix), cfg.StreamReplicas))
	})
}

// printEntries prints all entries by key, and whether limit requests a minute suffice
// for the intervals of single devices; 0 means no limit.
func printEntries(out io.Writer, now time.Time, items []control.Item, limit int) error {
	if len(items) == 0 {
		_, err := fmt.Fprintln(out, "no entries")
		return err
	}
	slices.SortFunc(items, func(a, b control.Item) int { return strings.Compare(a.Key, b.Key) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENTRY\tSTATE\tSETS\tSET BY\tSET AT")
	for i := range items {
		item := &items[i]
		status := "in force"
		e, err := control.Parse(item.Key, item.Value)
		var sets string
		switch {
		case err != nil:
			status, sets = "unreadable", err.Error()
		case !e.Until.IsZero() && !e.Until.After(now):
			status, sets = "ended", e.Describe()
		default:
			sets = e.Describe()
		}
		by := e.SetBy
		if by == "" {
			by = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", control.Title(item.Key), status, sets, by, item.Written.UTC().Format(time.RFC3339))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	need, limit := control.NewRules(now, items).Need(limit)
	if limit == 0 || need <= float64(limit) {
		return nil
	}
	_, err := fmt.Fprintf(out, "The intervals of these devices need %.0f polls a minute. The request budget permits %d requests, so they are polled less often.\n", need, limit)
	return err
}
