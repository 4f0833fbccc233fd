// Package broker connects a command to the NATS server of the bridge that the
// environment describes. Without NATS_URL that is the embedded server of a running
// bridge. The bridge itself connects in package publisher.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// With calls f with the configuration and the JetStream of the bridge that the
// environment describes. An error of f or of the connection ends the process with
// status 1.
func With(ctx context.Context, command string, f func(config.Config, jetstream.JetStream) error) error {
	cfg, _, err := config.Load("PLASPY_", "OTEL_")
	if err != nil {
		return err
	}
	conn, err := Connect(ctx, cfg, command)
	if err != nil {
		return cli.Failed(err)
	}
	defer func() { _ = conn.Shut(time.Second) }() // every request was answered, or its error is reported
	js, err := conn.OpenJetStream()
	if err != nil {
		return cli.Failed(fmt.Errorf("open JetStream: %w", err))
	}
	if err = f(cfg, js); err == nil {
		return nil
	}
	// A server does not answer a request that it does not permit.
	if denied := conn.Denied(); denied != "" {
		err = fmt.Errorf("%w (%s)", err, denied)
	}
	return cli.Failed(err)
}

// Connect connects as the bridge does, but gives up after a few seconds or at the
// deadline of ctx, and returns the reason for the missing connection. The server lists
// the connection under the name of the command.
func Connect(ctx context.Context, c config.Config, command string) (*publisher.Conn, error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o := c.ConnOptions("plaspy-bridge " + command)
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
	select {
	case <-conn.Up():
		return conn, nil
	case <-ctx.Done():
	}
	err = context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.New(conn.Trouble())
		if last := conn.LastError(); last != nil && !strings.Contains(err.Error(), last.Error()) {
			err = fmt.Errorf("%w: %w", err, last)
		}
	}
	_ = conn.Shut(0)
	return nil, err
}
