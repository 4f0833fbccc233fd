package preflight

import (
	"context"
	"fmt"
	"strings"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/replica"
)

// replicas compares what the running ones were told with this configuration.
func (b *broker) replicas(ctx context.Context) {
	const what = "replicas"
	ctx, cancel := b.limited(ctx)
	defer cancel()
	peers, err := replica.Peers(ctx, b.js, b.subjects)
	if err != nil {
		b.say(Warn, what, "which ones run cannot be read: "+reason(ctx, err), "see to the permissions above")
		return
	}
	told := b.cfg.Agreement()
	alike := true
	for _, p := range peers {
		var variables []string
		for _, name := range p.Differs(told) {
			variables = append(variables, config.AgreementVariables(name))
		}
		if len(variables) > 0 {
			alike = false
			b.say(Warn, what, fmt.Sprintf("%s runs with other values of %s", p.ID, strings.Join(variables, ", ")),
				"tell all replicas the same: a device that its owner is told to leave out is polled by nobody")
		}
	}
	switch {
	case !alike:
	case len(peers) == 0:
		b.ok(what, "none runs now")
	default:
		b.ok(what, "%d run now, and were told the same", len(peers))
	}
}
