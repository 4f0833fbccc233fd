package preflight_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/config/configtest"
	"plaspy-bridge/bridge/preflight"
	"plaspy-bridge/bridge/replica"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// cluster starts three servers and points the environment to the first.
func (r *rig) cluster() []*natstest.Server {
	r.Helper()
	servers := natstest.StartCluster(r, 3, func(o *server.Options) {
		o.Users = []*server.User{{Username: "bridge", Password: password}, {Username: "admin", Password: password}}
	})
	r.env("NATS_URL", servers[0].ClientURL(), "NATS_USER", "bridge", "NATS_PASSWORD", password)
	return servers
}

var proof = flag.Bool("proof", false, "run the proof with a cluster too")

// TestCluster compares configured replicas with known servers, and reports offline replicas.
func TestCluster(t *testing.T) {
	t.Parallel()
	if !*proof {
		t.Skip("three servers elect leaders; run with -proof")
	}
	r := newRig(t, sim.Options{})
	servers := r.cluster()
	_, js := r.admin(servers[0])
	natstest.Eventually(r, "JetStream has a leader, and all know each other", func() bool {
		_, err := js.AccountInfo(t.Context())
		lines, _ := r.check()
		return err == nil && !strings.Contains(lines, "FAIL JetStream")
	})
	r.env("BRIDGE_STREAM_REPLICAS", "3")
	r.want(0, 0, `ok   BRIDGE_STREAM_REPLICAS: 3 replicas, and 3 servers of cluster c are known`, `ok   power failure: .*only if a majority of the 3 replicas loses power at once`)
	r.env("BRIDGE_STREAM_REPLICAS", "5")
	r.want(1, 0, `warn BRIDGE_STREAM_REPLICAS: 5 replicas are configured, but only 3 servers of cluster c are known: add servers`)
	r.env("BRIDGE_STREAM_REPLICAS", "2")
	r.want(1, 0, `warn BRIDGE_STREAM_REPLICAS: 2 replicas tolerate the loss of no more servers than 1: set it to 1 or 3`)

	r.env("BRIDGE_STREAM_REPLICAS", "3")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want := publisher.Subjects("plaspy").Streams(publisher.StreamOptions{Retention: 168 * time.Hour, Replicas: 3, Inbound: true})
	if _, err := publisher.EnsureStreams(ctx, js, want); err != nil {
		t.Fatal(err)
	}
	r.want(0, 0, `ok   stream PLASPY_EVENTS: exists`)
	servers[2].Kill()
	natstest.Eventually(r, "the loss shows", func() bool {
		lines, _ := r.check()
		return strings.Contains(lines, "warn stream PLASPY_EVENTS: replicas are offline: n2: restart those servers")
	})
}

// TestNATSConf runs the checks as each user of deploy/nats.conf. Only the bridge's
// users have the needed permissions.
func TestNATSConf(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	passwords := regexp.MustCompile(`\$[A-Z]+_PASSWORD`)
	if n := len(passwords.FindAll(text, -1)); n != 7 { // one of them in a comment
		t.Fatalf("%d passwords in the file, want 7", n)
	}
	conf := passwords.ReplaceAllString(string(text), password)
	for _, there := range []bool{false, true} {
		t.Run(fmt.Sprintf("streams there %t", there), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sim.Options{})
			s := r.configured(conf)
			if there {
				nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("bridge", password), nats.Timeout(time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				js := natstest.JetStream(t, nc)
				ensure(t, js, nil)
			}
			r.want(0, 0, `ok   permissions: the bridge has all permissions`)
			r.env("NATS_INBOX_PREFIX", "_INBOX_bridge", "NATS_QUERY_USER", "query", "NATS_QUERY_PASSWORD", password)
			r.want(0, 0, `ok   permissions: the bridge has all permissions`, `ok   permissions: the query service has all permissions`)
			r.env("NATS_INBOX_PREFIX", "", "NATS_QUERY_PASSWORD", "other")
			r.want(0, 1, `FAIL NATS: .*uthorization .iolation: check NATS_QUERY_CREDS, NATS_QUERY_NKEY`)
			r.env("NATS_QUERY_USER", "", "NATS_QUERY_PASSWORD", "")
			for user, lacks := range map[string]string{"subscriber": "$JS.API.STREAM.INFO.PLASPY_INBOUND", "gateway": "$JS.API.STREAM.INFO.PLASPY_EVENTS"} {
				r.env("NATS_USER", user)
				suits := func(lines string, n preflight.Counts) bool {
					return n.Fail > 0 && strings.Contains(lines, "allow this user to publish to "+lacks)
				}
				lines, n := r.longer(suits)
				if !suits(lines, n) {
					t.Errorf("the %s would do as the bridge's user:\n%s", user, lines)
				}
				if strings.Contains(lines, " replicas:") {
					t.Errorf("the %s cannot read the replicas' bucket, and yet:\n%s", user, lines)
				}
			}
		})
	}
}

// TestReplicas compares the settings of running replicas with this configuration.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := newRig(t, sim.Options{})
	s := r.broker(nil)
	_, js := r.admin(s)
	r.want(0, 0, `ok   replicas: no replica runs now`)
	ensure(t, js, nil)
	cfg, _, err := configtest.Load(t, r.variables)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b 1", "a"} {
		shares := make(chan struct{}, 1)
		g := replica.New(replica.Options{ID: id, JS: js, Subjects: "plaspy", Limit: 600, Settings: cfg.Agreement()})
		change := func(a replica.Assignment) (none replica.InFlight) {
			if a.Members > 0 {
				select {
				case shares <- struct{}{}:
				default:
				}
			}
			return none
		}
		natstest.Run(t, func(ctx context.Context) { _ = g.Run(ctx, func() (none replica.Load) { return none }, change) })
		<-shares
	}
	r.want(0, 0, `ok   replicas: 2 run now, with the same settings`)
	r.env("BRIDGE_DEVICES", "device*", "PLASPY_RATE_LIMIT", "60")
	r.want(2, 0, `warn replicas: a runs with other values of BRIDGE_DEVICES, BRIDGE_DEVICES_EXCLUDE and BRIDGE_GROUPS, PLASPY_RATE_LIMIT: use the same values for all replicas`,
		`warn replicas: b 1 runs with`)
}
