package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
)

func envCommand() *cobra.Command {
	var example, markdown bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Show every environment variable and the value in force",
		Long: "Shows every environment variable with its type, default and meaning, and the value in force\n" +
			"with secrets masked. Needs no configuration, and exits 0 even if the configuration is wrong.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case example:
				return config.WriteEnvExample(cmd.OutOrStdout())
			case markdown:
				return config.WriteSettings(cmd.OutOrStdout())
			}
			c, warnings, err := config.Load()
			return writeEnv(cmd.OutOrStdout(), c, warnings, err)
		},
	}
	cmd.Flags().BoolVar(&example, "example", false, "print an environment file to fill in instead")
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the settings table of deploy/docs/settings.md instead")
	cmd.MarkFlagsMutuallyExclusive("example", "markdown")
	return cmd
}

// writeEnv writes the table of settings, and below it their errors and warnings.
func writeEnv(w io.Writer, c config.Config, warnings []config.Warning, err error) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "VARIABLE\tVALUE\tDEFAULT\tTYPE\tMEANING") // Flush returns the error
	for _, s := range c.Settings(err) {
		value := s.Value
		switch {
		case s.Problem != "" && !s.Set:
			value = "(not set)"
		case s.Problem != "":
			value = "(wrong)"
		case value == "":
			value = "-"
		}
		def := s.Default
		if def == "" {
			def = "-"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Name, value, def, s.Type, s.Meaning)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	faults, _ := errors.AsType[config.Faults](err)
	for _, f := range faults {
		_, _ = fmt.Fprintf(w, "\nerror: %s %s", f.Variable, f.Problem)
	}
	for _, odd := range warnings {
		_, _ = fmt.Fprintf(w, "\nwarning: %s", odd)
	}
	if len(faults)+len(warnings) > 0 {
		_, _ = fmt.Fprintln(w)
	}
	return nil
}
