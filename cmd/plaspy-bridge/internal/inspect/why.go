package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/ops"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/cmd/plaspy-bridge/internal/broker"
	"plaspy-bridge/cmd/plaspy-bridge/internal/cli"
	"plaspy-bridge/publisher"
)

// WhyCommand returns the command why.
func WhyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why DEVICE",
		Short: "Show the last decisions on a device",
		Long: "Shows the last decisions on a device as JSON: its polls, their results, the time of the next poll and its\n" +
			"reason. Asks the bridge on BRIDGE_HTTP_ADDR first, and if that one does not poll the device, all bridges\n" +
			"by the query service on NATS.",
		Args: cli.OneDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load("PLASPY_", "OTEL_")
			if err != nil {
				return err
			}
			answer, polls := localWhy(cmd.Context(), cfg, args[0])
			if !polls {
				others, err := askWhy(cmd.Context(), cfg, args[0])
				switch {
				case err == nil:
					answer = others
				case answer == nil:
					return cli.Failed(err)
				}
			}
			_, err = cmd.OutOrStdout().Write(answer)
			return err
		},
	}
}

// localWhy returns the answer of the bridge on this machine, indented, or nil if there is
// none, and whether that bridge polls the device. The bridge's own NATS user may not be
// allowed to ask the query service.
func localWhy(ctx context.Context, cfg config.Config, id string) (answer []byte, polls bool) {
	if cfg.HTTPAddr == "" {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := ops.Get(ctx, cfg.HTTPAddr, "/view/why?device="+url.QueryEscape(id), cfg.HTTPToken.Reveal())
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, false
	}
	var about outbound.Reason
	if json.Unmarshal(body, &about) != nil || about.DeviceID != id { // another program's answer
		return nil, false
	}
	if answer, err = indented(body); err != nil {
		return nil, false
	}
	return answer, about.Polled()
}

// indented returns JSON for a person.
func indented(data []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, errors.New("the answer is not JSON")
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// askWhy returns the query service's answer, indented.
func askWhy(ctx context.Context, cfg config.Config, id string) ([]byte, error) {
	token, err := publisher.Token(id)
	if err != nil {
		return nil, fmt.Errorf("device id: %w", err)
	}
	conn, err := broker.Connect(ctx, cfg, "why")
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
		return nil, fmt.Errorf("the query service answers %s: %s", cli.Shown(code), cli.Shown(m.Header.Get("Nats-Service-Error")))
	}
	return indented(m.Data)
}
