package replica

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestFifty: many replicas agree, and what they write does not depend on what
// they do.
func TestFifty(t *testing.T) {
	t.Parallel()
	needsProof(t)
	const n = 50
	r := newRig(t, 300) // all are looked at for all replicas, at every change
	var nodes []*node
	start := time.Now()
	for i := range n {
		nodes = append(nodes, r.start(string(rune('A'+i)), func(_ *node, o *Options) { o.Lease, o.Limit = DefaultLease, 60_000 }))
	}
	r.awaitDivided(nodes...)
	t.Logf("%d replicas shared the work after %v", n, time.Since(start))
	kv := r.bucket()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := kv.Watch(ctx, "group.>", jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	writes, bytes := 0, 0
	stop := time.After(2 * DefaultLease)
	for counting := true; counting; {
		select {
		case e := <-w.Updates():
			writes++
			bytes += len(e.Value())
		case <-stop:
			counting = false
		}
	}
	_ = w.Stop()
	t.Logf("in %v: %d writes, %d bytes", 2*DefaultLease, writes, bytes)
	if most := n*8*13/10 + 10; writes > most { // 8 renewals each
		t.Errorf("%d writes to the bucket in two leases, want at most %d", writes, most)
	}
	nodes[7].kill()
	r.awaitDivided(remove(nodes, nodes[7])...)
}
