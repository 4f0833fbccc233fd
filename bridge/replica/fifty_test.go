package replica

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestFifty checks that many replicas agree, and that the rate of their writes does not
// depend on their work.
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
	// A replica that a busy machine delays for almost a lease is evicted and joins again,
	// with more writes. Writes that depend on the work are there in every window.
	const most = n*8*13/10 + 10 // 8 renewals each
	for window := 1; ; window++ {
		r.awaitDivided(nodes...)
		writes, bytes := r.writes(2 * DefaultLease)
		t.Logf("in %v: %d writes, %d bytes", 2*DefaultLease, writes, bytes)
		if writes <= most {
			break
		}
		if window == 5 {
			t.Errorf("%d writes to the bucket in two leases, want at most %d", writes, most)
			break
		}
	}
	nodes[7].kill()
	r.awaitDivided(remove(nodes, nodes[7])...)
}

// writes counts what the replicas write to the bucket for a time.
func (r *rig) writes(during time.Duration) (writes, bytes int) {
	r.Helper()
	w, err := r.bucket().Watch(r.Context(), "group.>", jetstream.UpdatesOnly())
	if err != nil {
		r.Fatal(err)
	}
	stop := time.After(during)
	for {
		select {
		case e := <-w.Updates():
			writes++
			bytes += len(e.Value())
		case <-stop:
			_ = w.Stop()
			return writes, bytes
		}
	}
}
