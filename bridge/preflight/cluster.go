package preflight

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/replica"
)

// servers returns the number of known servers, the connected one included.
func (b *broker) servers() int {
	var hosts []string
	for _, s := range append(b.conn.DiscoveredServers(), b.conn.ConnectedUrl()) {
		if u, err := url.Parse(s); err == nil {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	return len(slices.Compact(hosts))
}

// cluster compares the configured number of stream replicas with the known servers.
func (b *broker) cluster() {
	const item = "BRIDGE_STREAM_REPLICAS"
	replicas := b.check.cfg.StreamReplicas
	switch n := b.servers(); {
	case replicas == 1, b.conn.ConnectedClusterName() == "": // if a stream is missing, missingStream reports it
	case n < replicas:
		b.check.say(Warn, item, fmt.Sprintf("%d replicas are configured, but only %d servers of cluster %s are known", replicas, n, b.conn.ConnectedClusterName()),
			"add servers, or lower it; ignore this if the servers do not advertise each other (no_advertise)")
	case replicas%2 == 0:
		b.check.say(Warn, item, fmt.Sprintf("%d replicas tolerate the loss of no more servers than %d", replicas, replicas-1), fmt.Sprintf("set it to %d or %d", replicas-1, replicas+1))
	default:
		b.check.ok(item, "%d replicas, and %d servers of cluster %s are known", replicas, n, b.conn.ConnectedClusterName())
	}
}

// healthy checks the replicas of an existing stream. It returns false if it has
// reported a problem.
func (b *broker) healthy(item string, info *jetstream.StreamInfo) bool {
	if info.Cluster == nil || info.Config.Replicas < 2 {
		return true
	}
	var offline []string
	for _, peer := range info.Cluster.Replicas {
		if peer.Offline {
			offline = append(offline, peer.Name)
		}
	}
	switch {
	case info.Cluster.Leader == "":
		b.check.say(Fail, item, "has no leader", "restart the missing servers: a majority of its replicas must be online")
	case len(offline) > 0:
		b.check.say(Warn, item, fmt.Sprintf("replicas are offline: %s", strings.Join(offline, ", ")), "restart those servers: the stream may not survive the loss of another one")
	default:
		return true
	}
	return false
}

// recovery is the effect of lost storage on the streams.
const recovery = "the bridge publishes every device's newest state again, but inbound messages, results and dead letters of that time are lost"

// durability reports the data loss after a power failure. replicas is the smallest
// number of replicas of a stream.
func (b *broker) durability(replicas int) {
	const item = "power failure"
	if replicas > 1 {
		b.check.ok(item, "messages of the last sync_interval (default 2m) are lost only if a majority of the %d replicas loses power at once; then %s", replicas, recovery)
		return
	}
	b.check.ok(item, "messages acknowledged within the server's last sync_interval (default 2m; a client cannot read it) are lost: %s; "+
		"a shorter sync_interval reduces the loss, sync_interval: always or three replicas prevent it", recovery)
}

// embeddedDurability is durability for the embedded server. Its settings are known.
func (c *check) embeddedDurability(o *server.Options) {
	const item = "power failure"
	every := 2 * time.Minute // nats-server's default
	switch {
	case o != nil && o.SyncAlways:
		c.ok(item, "no acknowledged message is lost (sync_interval: always)")
		return
	case o != nil && o.SyncInterval > 0:
		every = o.SyncInterval
	}
	text := fmt.Sprintf("messages acknowledged in the last %s (sync_interval) are lost: %s", every, recovery)
	if !c.cfg.Inbound { // the bridge publishes all events again
		c.ok(item, "%s", text)
		return
	}
	c.say(Warn, item, text, "a shorter sync_interval in BRIDGE_EMBEDDED_CONFIG reduces the loss, always prevents it")
}

// replicas compares the settings of the running replicas with this configuration.
func (b *broker) replicas(ctx context.Context) {
	const item = "replicas"
	ctx, cancel := b.check.limited(ctx)
	defer cancel()
	peers, err := replica.Peers(ctx, b.js, b.subjects)
	if err != nil {
		b.check.say(Warn, item, "the list of running replicas cannot be read: "+reason(ctx, err), "correct the permissions above")
		return
	}
	ours := b.check.cfg.Agreement()
	alike := true
	for _, p := range peers {
		var variables []string
		for _, name := range p.Differs(ours) {
			variables = append(variables, config.AgreementVariables(name))
		}
		if len(variables) > 0 {
			alike = false
			b.check.say(Warn, item, fmt.Sprintf("%s runs with other values of %s", p.ID, strings.Join(variables, ", ")),
				"use the same values for all replicas: a device that its owner's settings exclude is polled by no replica")
		}
	}
	switch {
	case !alike:
	case len(peers) == 0:
		b.check.ok(item, "no replica runs now")
	default:
		b.check.ok(item, "%d run now, with the same settings", len(peers))
	}
}
