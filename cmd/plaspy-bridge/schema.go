package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/schema"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

func schemaCommand() *cobra.Command {
	var message, types string
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Show every subject and message as an AsyncAPI document, or as Go or TypeScript types",
		Long: "Shows the AsyncAPI 3 document of every subject and message, with their JSON Schemas. With --types it prints\n" +
			"one source file without dependencies instead: message types, id encoding and decoding. Needs no\n" +
			"configuration; subjects begin with BRIDGE_PREFIX.",
		Example: "  plaspy-bridge schema --types go > plaspy/plaspy.go\n  plaspy-bridge schema --types typescript > plaspy.ts",
		Args:    cli.All(cobra.NoArgs, cli.OneOf("types", &types, schema.Languages()), cli.OneOf("message", &message, schema.Messages())),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if message != "" {
				return writeSchema(cmd, func() ([]byte, error) { return schema.Standalone(message) })
			}
			prefix, err := subjectPrefix()
			if err != nil {
				return err
			}
			subjects := publisher.Subjects(prefix)
			if types != "" {
				return writeSchema(cmd, func() ([]byte, error) { return schema.Types(types, subjects) })
			}
			return writeSchema(cmd, func() ([]byte, error) { return schema.Document(subjects, number()) })
		},
	}
	cmd.Flags().StringVar(&message, "message", "", "print the JSON Schema of one message's body instead: "+strings.Join(schema.Messages(), ", "))
	cmd.Flags().StringVar(&types, "types", "", "print message types as one source file instead: "+strings.Join(schema.Languages(), " or "))
	cmd.MarkFlagsMutuallyExclusive("message", "types")
	return cmd
}

// subjectPrefix returns BRIDGE_PREFIX, even if other variables are wrong.
func subjectPrefix() (string, error) {
	c, _, err := config.Load()
	faults, _ := errors.AsType[config.Faults](err)
	if i := slices.IndexFunc(faults, func(f config.Fault) bool { return f.Variable == "BRIDGE_PREFIX" }); i >= 0 {
		return "", faults[i : i+1]
	}
	return c.Prefix, nil
}

func writeSchema(cmd *cobra.Command, content func() ([]byte, error)) error {
	b, err := content()
	if err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(b); err != nil {
		return fmt.Errorf("write schema: %w", err)
	}
	return nil
}
