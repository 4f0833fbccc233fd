package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/publisher"
)

func whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why DEVICE",
		Short: "Show the last decisions on a device",
		Long: "Asks the query service of the running bridges for the last decisions on a device: its polls, their\n" +
			"results, the time of the next poll and its reason. Prints the answer as JSON.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load("PLASPY_", "OTEL_")
			if err != nil {
				return err
			}
			answer, err := askWhy(cmd.Context(), cfg, args[0])
			if err != nil {
				return failure{err}
			}
			_, err = cmd.OutOrStdout().Write(answer)
			return err
		},
	}
}

// askWhy returns the query service's answer, indented.
func askWhy(ctx context.Context, cfg config.Config, id string) ([]byte, error) {
	token, err := publisher.Token(id)
	if err != nil {
		return nil, fmt.Errorf("device id: %w", err)
	}
	conn, err := connectNATS(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Shut(time.Second) }()
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	m, err := conn.RequestWithContext(ctx, publisher.Subjects(cfg.Prefix).API()+".why."+token, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errors.New("no bridge answers: none is running with this BRIDGE_PREFIX, or BRIDGE_QUERY is false")
	case err != nil && conn.Denied() != "":
		return nil, fmt.Errorf("ask the query service: %w (%s)", err, conn.Denied())
	case err != nil:
		return nil, fmt.Errorf("ask the query service: %w", err)
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
		return nil, fmt.Errorf("the query service answers %s: %s", shown(code), shown(m.Header.Get("Nats-Service-Error")))
	}
	var b bytes.Buffer
	if err := json.Indent(&b, m.Data, "", "  "); err != nil {
		return nil, errors.New("the answer is not JSON")
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
