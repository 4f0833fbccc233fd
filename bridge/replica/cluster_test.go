package replica

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"plaspy-bridge/publisher/natstest"
)

// newCluster makes a rig on three servers that replicate the bucket.
func newCluster(t *testing.T, devices int) (*rig, []*natstest.Server) {
	t.Helper()
	servers := natstest.StartCluster(t, 3)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	r := &rig{T: t, server: servers[0], changed: make(chan struct{}, 1), urls: strings.Join(urls, ","), copies: 3}
	for i := range devices {
		r.tokens = append(r.tokens, fmt.Sprintf("dev=20%d", i))
	}
	return r, servers
}

// TestCluster checks that replicas survive the loss of the server that leads the bucket,
// and joins and leaves meanwhile.
func TestCluster(t *testing.T) {
	t.Parallel()
	needsProof(t)
	r, servers := newCluster(t, 100)
	a, b := r.start("a"), r.start("b")
	r.awaitDivided(a, b)
	for i := range 3 {
		leader := leaderOf(r, servers)
		leader.Kill()
		c := r.start(string(rune('c' + i)))
		r.awaitDivided(a, b, c)
		c.kill()
		r.awaitDivided(a, b)
		leader.Restart()
		r.await("the server is back", func() bool { return leader.JetStreamIsCurrent() })
	}
}

// leaderOf gives the server that leads the bucket's stream.
func leaderOf(r *rig, servers []*natstest.Server) (leader *natstest.Server) {
	r.Helper()
	r.await("the bucket has a leader", func() bool {
		for _, s := range servers {
			if s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "KV_"+subjects.ReplicasBucket()) {
				leader = s
			}
		}
		return leader != nil
	})
	return leader
}
