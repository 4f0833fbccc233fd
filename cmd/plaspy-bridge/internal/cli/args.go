package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"plaspy-bridge/publisher"
)

// All runs several checks of a command line, up to the first error.
func All(checks ...cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for _, check := range checks {
			if err := check(cmd, args); err != nil {
				return err
			}
		}
		return nil
	}
}

// OneDevice checks that the only argument is the id of a device.
func OneDevice(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected one DEVICE, got %d", len(args))
	}
	_, err := publisher.Token(args[0])
	return err
}

// OneOf checks that a flag is not set, or has one of the values.
func OneOf(flag string, value *string, values []string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed(flag) || slices.Contains(values, *value) {
			return nil
		}
		return fmt.Errorf("--%s %q: expected one of %s", flag, *value, strings.Join(values, ", "))
	}
}
