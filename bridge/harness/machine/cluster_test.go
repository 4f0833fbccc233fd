//go:build linux

package machine_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/natsserver"
	"plaspy-bridge/bridge/harness/network"
)

// cluster is three nats-servers, of which the first is the rig's. Their routes use links.
type cluster struct {
	nodes []*natsserver.Broker
	args  [][]string
	links map[[2]int]*network.Link // from the server that connects
}

const nodes = 3

func (r *rig) cluster(ctx context.Context, t *testing.T) *cluster {
	t.Helper()
	c := &cluster{nodes: []*natsserver.Broker{r.Broker}, links: map[[2]int]*network.Link{}}
	b, err := built()
	ok(t, err)
	take := func() string {
		addr, err := ports.Take(ctx)
		ok(t, err)
		return addr
	}
	var urls, addrs []string
	for i := range nodes {
		if i > 0 {
			n, err := natsserver.New(b.Broker, t.TempDir(), take())
			ok(t, err)
			t.Cleanup(n.Close)
			c.nodes = append(c.nodes, n)
		}
		urls, addrs = append(urls, c.nodes[i].URL()), append(addrs, take())
	}
	for i := range nodes {
		var routes []string
		for j := range nodes {
			if i == j {
				continue
			}
			link, err := network.NewLink(ctx, take(), addrs[j])
			ok(t, err)
			t.Cleanup(link.Close)
			c.links[[2]int{i, j}] = link
			routes = append(routes, link.URL())
		}
		// The advertised addresses lead nowhere, so that no client bypasses the links.
		c.args = append(c.args, []string{
			"-n", "node" + strconv.Itoa(i), "--cluster_name", "three", "--cluster", "nats://" + addrs[i],
			"--cluster_advertise", "127.0.0.1:1", "--routes", strings.Join(routes, ","),
		})
		ok(t, c.nodes[i].Launch(c.args[i], nil))
	}
	for _, n := range c.nodes {
		ok(t, n.Answers(ctx))
	}
	r.nodes, r.patience = c.nodes, inCluster
	r.Bridge.Set("NATS_URL="+strings.Join(urls, ","), "BRIDGE_STREAM_REPLICAS=3")
	return c
}

// each calls f with the links of a node.
func (c *cluster) each(node int, f func(*network.Link)) {
	for ends, link := range c.links {
		if slices.Contains(ends[:], node) {
			f(link)
		}
	}
}

// startCluster is start with a cluster as the broker.
func (r *rig) startCluster(ctx context.Context, t *testing.T) *cluster {
	t.Helper()
	c := r.cluster(ctx, t)
	r.Produce(10, r.every)
	ok(t, r.Bridge.Start(ctx))
	ok(t, r.Bridge.Ready(ctx))
	ok(t, r.Polled(ctx, time.Now()))
	return c
}

// leader waits for a leader of a stream other than last, and returns it.
func (c *cluster) leader(ctx context.Context, t *testing.T, stream string, last int) int {
	t.Helper()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		for _, n := range c.nodes {
			if !n.Running() || !n.Conn().IsConnected() {
				continue
			}
			try, cancel := context.WithTimeout(ctx, time.Second)
			st, err := n.JetStream().Stream(try, stream)
			cancel()
			if err == nil && st.CachedInfo().Cluster != nil && st.CachedInfo().Cluster.Leader != "" {
				i, err := strconv.Atoi(strings.TrimPrefix(st.CachedInfo().Cluster.Leader, "node"))
				ok(t, err)
				if i != last {
					tick.Stop()
					return i
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}

// TestStepDown makes the leaders of the streams step down during publishing and posting.
func TestStepDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 20}, false)
	ctx := harness.Within(t, 5*time.Minute)
	r.startCluster(ctx, t)
	w := r.watch(t)
	from := time.Now()
	for range 4 {
		wait(ctx, t, time.Second)
		for _, stream := range []string{subjects.Events(), subjects.Inbound(), subjects.Results()} {
			stepDown(ctx, t, r.Broker, stream)
		}
	}
	r.recovers(ctx, t)
	r.truthful(t, w, from)
	report := r.settled(ctx, t, "leaders step down", workers)
	if report.Published != report.Shown {
		t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
	}
}

// TestLeaderGone ends or suspends the leader of the events stream during publishing.
func TestLeaderGone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		times int
		gone  func(*natsserver.Broker) error
		back  func(context.Context, *natsserver.Broker, []string) error
	}{
		{"killed", 2, (*natsserver.Broker).Kill, func(ctx context.Context, n *natsserver.Broker, args []string) error {
			return errors.Join(n.Launch(args, nil), n.Answers(ctx))
		}},
		{"stands still", 1, (*natsserver.Broker).Pause, func(ctx context.Context, n *natsserver.Broker, _ []string) error {
			return n.Resume(ctx)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, harness.Options{Devices: 20}, false)
			ctx := harness.Within(t, 5*time.Minute)
			c := r.startCluster(ctx, t)
			w := r.watch(t)
			from := time.Now()
			for range test.times {
				wait(ctx, t, time.Second)
				i := c.leader(ctx, t, subjects.Events(), -1)
				ok(t, test.gone(c.nodes[i]))
				c.leader(ctx, t, subjects.Events(), i) // the election takes 4 to 9 s
				ok(t, test.back(ctx, c.nodes[i], c.args[i]))
				r.recovers(ctx, t)
			}
			r.truthful(t, w, from)
			// The leader may have sent an acknowledgement and ended before it stored it.
			report := r.settled(ctx, t, "leader "+test.name, test.times*workers)
			if report.Published != report.Shown {
				t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
			}
		})
	}
}

// TestServerThatWasCutOff reads a stream through a server that was cut off from the others
// while these received messages. The server answers for the stream with its own copy. The
// harness has to wait until the server follows the others again.
func TestServerThatWasCutOff(t *testing.T) {
	t.Parallel()
	for _, leader := range []bool{true, false} {
		t.Run(map[bool]string{true: "leader", false: "follower"}[leader], func(t *testing.T) {
			t.Parallel()
			r := newRig(t, harness.Options{Devices: 1}, false)
			ctx := harness.Within(t, 5*time.Minute)
			c := r.cluster(ctx, t)
			const before, after = 31, 159
			for counted := (jetstream.StreamConfig{Name: "COUNTED", Subjects: []string{"counted"}, Replicas: nodes}); ; {
				// The servers learn of each other shortly after they have a leader.
				if _, err := r.Broker.JetStream().CreateStream(ctx, counted); err == nil {
					break
				}
				ok(t, ctx.Err())
				wait(ctx, t, 100*time.Millisecond)
			}
			publish(ctx, t, r.Broker, before)
			cut := c.leader(ctx, t, "COUNTED", -1)
			if !leader {
				cut = (cut + 1) % nodes
			}
			n, other := c.nodes[cut], c.nodes[(cut+1)%nodes]
			c.replicated(ctx, t, cut, before)
			c.each(cut, (*network.Link).Reset)
			publish(ctx, t, other, after)
			stale := askUntil(ctx, t, n, func(*jetstream.StreamInfo) bool { return true })
			t.Logf("cut off, node%d answers for the stream, leader %q: last message %d of %d", cut, stale.Cluster.Leader, stale.State.LastSeq, before+after)
			if stale.State.LastSeq != before {
				t.Errorf("the fault was not there: it holds %d messages", stale.State.LastSeq)
			}
			read := make(chan uint64, 1)
			go func() {
				count, err := natsserver.Count(ctx, n.JetStream(), "COUNTED")
				if err != nil {
					t.Error(err)
				}
				read <- count
			}()
			wait(ctx, t, time.Second)
			select {
			case count := <-read:
				t.Fatalf("the harness read %d messages through a server that is cut off", count)
			default:
			}
			healed := time.Now()
			c.each(cut, (*network.Link).Restore)
			count := <-read
			t.Logf("the harness read %d messages %v after the end of the partition", count, time.Since(healed).Round(time.Millisecond))
			if count != before+after {
				t.Errorf("the harness read %d messages, want %d", count, before+after)
			}
		})
	}
}

// publish publishes messages and waits until a majority has stored them.
func publish(ctx context.Context, t *testing.T, b *natsserver.Broker, n int) {
	t.Helper()
	for i := range n {
		for {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err := b.JetStream().Publish(try, "counted", nil, jetstream.WithMsgID(fmt.Sprintf("%d of %d", i, n)), jetstream.WithRetryAttempts(0))
			cancel()
			if err == nil {
				break
			}
			ok(t, ctx.Err())
		}
	}
}

// askUntil asks a server about the stream until its answer suits.
func askUntil(ctx context.Context, t *testing.T, b *natsserver.Broker, suits func(*jetstream.StreamInfo) bool) *jetstream.StreamInfo {
	t.Helper()
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		st, err := b.JetStream().Stream(try, "COUNTED")
		cancel()
		if err == nil && suits(st.CachedInfo()) {
			return st.CachedInfo()
		}
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
	}
}

// replicated waits until a node has stored the same messages as the others.
func (c *cluster) replicated(ctx context.Context, t *testing.T, node int, n uint64) {
	t.Helper()
	askUntil(ctx, t, c.nodes[node], func(i *jetstream.StreamInfo) bool {
		return i.State.LastSeq == n && !slices.ContainsFunc(i.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current })
	})
}

// TestPartition cuts the bridge's server off from the others. The server continues to run,
// but only the others can store messages.
func TestPartition(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 20}, false)
	ctx := harness.Within(t, 5*time.Minute)
	c := r.startCluster(ctx, t)
	w := r.watch(t)
	from := time.Now()
	i := r.connectedTo(t)
	c.each(i, (*network.Link).Reset)
	ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool { return h.Reasons["publish"] != "" }))
	r.recovers(ctx, t)
	if r.connectedTo(t) == i {
		t.Errorf("the bridge is at work, connected to server %d: the fault was not there", i)
	}
	c.each(i, (*network.Link).Restore)
	for _, n := range c.nodes {
		ok(t, n.Answers(ctx))
	}
	r.recovers(ctx, t)
	r.truthful(t, w, from)
	report := r.settled(ctx, t, "partition", workers)
	if report.Published != report.Shown {
		t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
	}
}

var connected = regexp.MustCompile(`"nats connected".*"server":"node(\d)"`)

// connectedTo returns the node that the bridge is connected to.
func (r *rig) connectedTo(t *testing.T) int {
	t.Helper()
	log, err := r.Bridge.Log()
	ok(t, err)
	all := connected.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		t.Fatal("the bridge did not connect")
	}
	i, err := strconv.Atoi(all[len(all)-1][1])
	ok(t, err)
	return i
}

// stepDown asks the leader to step down until it confirms this.
func stepDown(ctx context.Context, t *testing.T, b *natsserver.Broker, stream string) {
	t.Helper()
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		m, err := b.Conn().RequestWithContext(try, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
		cancel()
		if err == nil && strings.Contains(string(m.Data), `"success":true`) {
			return
		}
	}
	t.Fatalf("the leader of %s does not step down: %v", stream, context.Cause(ctx))
}
