package main

import (
	"context"
	"io"

	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/cmd/plaspy-bridge/internal/demo"
	"plaspy-bridge/cmd/plaspy-bridge/internal/dlq"
	"plaspy-bridge/cmd/plaspy-bridge/internal/inspect"
	"plaspy-bridge/cmd/plaspy-bridge/internal/operate"

	"github.com/spf13/cobra"
)

// execute runs one command line and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "plaspy-bridge",
		Short: "Bridge between the Plaspy GPS REST API and NATS JetStream",
		Long: "plaspy-bridge polls the Plaspy REST API, publishes changed locations and alerts to NATS JetStream,\n" +
			"and posts the messages of its inbound subjects to the API.\n\n" +
			"Settings are environment variables; plaspy-bridge env shows all of them.\n" +
			"Exit status: 0 done, 1 failed at run time, 2 the configuration or the command line is wrong.",
	}
	root.AddCommand(commands()...)
	return cli.Execute(ctx, root, args, stdout, stderr)
}

// commands returns all commands in the order in which help shows them.
func commands() []*cobra.Command {
	return []*cobra.Command{
		runCommand(),
		demo.Command(thisBuild),
		checkCommand(),
		operate.ControlCommand(),
		dlq.Command(),
		envCommand(),
		operate.ForgetCommand(),
		inspect.HealthCommand(),
		schemaCommand(),
		simCommand(),
		inspect.StatusCommand(),
		versionCommand(),
		inspect.WhyCommand(),
	}
}
