package preflight

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// servers counts those that the client was told of, the connected one included.
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

// cluster compares the copies wanted with the servers there are, and advises on
// what a power cut costs.
func (b *broker) cluster() {
	const what = "BRIDGE_STREAM_REPLICAS"
	copies := b.cfg.StreamReplicas
	switch n := b.servers(); {
	case copies == 1, b.conn.ConnectedClusterName() == "": // where streams are missing, that tells
	case n < copies:
		b.say(Warn, what, fmt.Sprintf("%d copies are wanted, and only %d servers of cluster %s are known", copies, n, b.conn.ConnectedClusterName()),
			"add servers, or lower it; nothing, if the servers do not advertise each other (no_advertise)")
	case copies%2 == 0:
		b.say(Warn, what, fmt.Sprintf("%d copies stand the loss of no more servers than %d", copies, copies-1), fmt.Sprintf("set it to %d or %d", copies-1, copies+1))
	default:
		b.ok(what, "%d copies, and %d servers of cluster %s are known", copies, n, b.conn.ConnectedClusterName())
	}
}

// healthy reports on the copies of a stream that is there, and returns false
// where it has said something.
func (b *broker) healthy(what string, info *jetstream.StreamInfo) bool {
	if info.Cluster == nil || info.Config.Replicas < 2 {
		return true
	}
	var away []string
	for _, peer := range info.Cluster.Replicas {
		if peer.Offline {
			away = append(away, peer.Name)
		}
	}
	switch {
	case info.Cluster.Leader == "":
		b.say(Fail, what, "has no leader", "bring back the servers that are away: most of its copies have to be there")
	case len(away) > 0:
		b.say(Warn, what, fmt.Sprintf("copies are away: %s", strings.Join(away, ", ")), "bring back those servers: it does not stand the loss of another one")
	default:
		return true
	}
	return false
}

const survivors = "the bridge publishes every device's newest state again, but inbound messages, results and dead letters of that time are lost"

// durability tells what a power cut costs. copies are those of the streams.
func (b *broker) durability(copies int) {
	const what = "power cut"
	if copies > 1 {
		b.ok(what, "what the servers acknowledged within their sync_interval (2m unless set) is lost only if most of its %d copies lose power at once; then %s", copies, survivors)
		return
	}
	b.ok(what, "what the server acknowledged within its sync_interval (2m unless set, and not told to a user) is lost: %s; "+
		"a shorter sync_interval narrows that, sync_interval: always or three copies rule it out", survivors)
}

// embeddedDurability tells the same of the embedded server, whose settings are
// known.
func (c *check) embeddedDurability(o *server.Options) {
	const what = "power cut"
	every := 2 * time.Minute // nats-server's default
	switch {
	case o != nil && o.SyncAlways:
		c.ok(what, "nothing that was acknowledged is lost (sync_interval: always)")
		return
	case o != nil && o.SyncInterval > 0:
		every = o.SyncInterval
	}
	c.ok(what, "what was acknowledged in the last %s (sync_interval) is lost: %s; a BRIDGE_EMBEDDED_CONFIG with a shorter one narrows that, always rules it out", every, survivors)
}
