package bridge

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/publisher/natstest"
)

var proof = flag.Bool("proof", false, "run the proofs too; takes minutes")

// replicaOf runs one of several bridges until the test ends or end is called,
// which does not wait for it.
func replicaOf(t *testing.T, cfg config.Config, id string) (b *Bridge, end func() <-chan struct{}) {
	t.Helper()
	cfg.ReplicaID, cfg.DataDir = id, t.TempDir()
	b, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Run(ctx) // returns an error if the test closes the connection
	}()
	end = func() <-chan struct{} {
		cancel()
		return done
	}
	t.Cleanup(func() { <-end() })
	return b, end
}

// feedInbound publishes a numbered location of each device in turn, one each time
// every has passed, until the test ends.
func feedInbound(t *testing.T, nc *nats.Conn, devices int, every time.Duration) {
	t.Helper()
	natstest.Run(t, func(ctx context.Context) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			body := fmt.Sprintf(`{"dateTime":"2026-01-02T03:04:01Z","latitude":4.7,"longitude":-74.1,"rpm":%d}`, n)
			if err := nc.Publish(fmt.Sprintf("plaspy.in.location.device%04d", 1+n%devices), []byte(body)); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// posted gives when the API took posts, over all devices, and fails the test if
// those of one device came out of order, or one of them twice.
func posted(t *testing.T, api *sim.Server) (newest time.Time, n int) {
	t.Helper()
	for _, id := range api.IDs() {
		last := -1
		for _, p := range api.Posts(id) {
			var body struct {
				Location struct {
					RPM int `json:"rpm"`
				} `json:"location"`
			}
			if err := json.Unmarshal([]byte(p.Body), &body); err != nil {
				t.Fatal(err)
			}
			if body.Location.RPM <= last {
				t.Errorf("%s: %d posted after %d", id, body.Location.RPM, last)
			}
			last = body.Location.RPM
			n++
			if p.At.After(newest) {
				newest = p.At
			}
		}
	}
	return newest, n
}

// TestInboundTakeover: the replica that posts for all is replaced within 3 s when
// it is stopped, and within 15 s when it is killed, whether or not it is also
// the one that writes the plans for the polls. The budget is used up meanwhile,
// so posts wait for it at the moment of the stop.
func TestInboundTakeover(t *testing.T) {
	if !*proof {
		t.Parallel()
	}
	for _, tt := range []struct {
		name         string
		holder, next string // the first to start posts; the first by name writes plans
		gone         bool
		within       time.Duration
	}{
		{"stopped", "a", "b", false, 3 * time.Second},
		{"stopped, plans are another one's", "b", "a", false, 3 * time.Second},
		{"gone, plans are another one's", "b", "a", true, 15 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.gone && !*proof {
				t.Skip("waits for a lease; run with -proof")
			}
			const devices = 8
			api, cfg := fleetOf(t, sim.Options{Devices: devices, Seed: 1, Profile: fleet.EverySecond, Record: 10_000})
			srv := natstest.Start(t, natstest.Listen)
			cfg.NATSURL, cfg.RateLimit, cfg.HTTPAddr, cfg.InboundWorkers = config.Servers(srv.ClientURL()), 1200, "", devices
			nc := srv.Client(t)
			holder, end := replicaOf(t, cfg, tt.holder)
			natstest.Eventually(t, "the first one posts", func() bool { return holder.consuming.consumer.Status().Holding })
			next, endNext := replicaOf(t, cfg, tt.next)
			natstest.Eventually(t, "both share the polls", func() bool { return next.group.Live() && next.group.Trouble() == "" && next.polling.pool.Owned() > 0 })
			feedInbound(t, nc, devices, 10*time.Millisecond)
			natstest.Eventually(t, "posts wait for the budget", func() bool {
				waiting := func(b *Bridge) bool { return b.api.budget.Waiting(plaspy.Post) > devices/2 }
				if !*proof && waiting(next) { // a replica that does not get the CPU may lose its lease
					t.Log("the posting seat has moved to the second one")
					holder, end, next, endNext = next, endNext, holder, end
				}
				return waiting(holder)
			})
			began := time.Now()
			if tt.gone {
				holder.broker.conn.Close()
			}
			end()
			natstest.Eventually(t, "the other one posts", func() bool { return next.consuming.consumer.Status().Holding })
			held := time.Since(began)
			natstest.Eventually(t, "its first post", func() bool { at, _ := posted(t, api); return at.After(began.Add(held)) })
			took := time.Since(began)
			t.Logf("lease after %v, first post after %v", held.Round(time.Millisecond), took.Round(time.Millisecond))
			if *proof && took > tt.within { // not beside other tests, which take the processors
				t.Errorf("the next replica's first post was after %v, want within %v", took, tt.within)
			}
			_, before := posted(t, api)
			natstest.Eventually(t, "more posts", func() bool { _, n := posted(t, api); return n > before+20 })
		})
	}
}

// TestInboundLeavesReplicaWithoutAPI: the replica that posts for all loses the API,
// and another one that still reaches it posts instead, in order and nothing twice.
func TestInboundLeavesReplicaWithoutAPI(t *testing.T) {
	if !*proof {
		t.Skip("waits for the circuit of the polls; run with -proof")
	}
	t.Parallel()
	const devices = 8
	api, cfg := fleetOf(t, sim.Options{Devices: devices, Seed: 1, Profile: fleet.EverySecond, Record: 10_000})
	srv := natstest.Start(t, natstest.Listen)
	cfg.NATSURL, cfg.RateLimit, cfg.HTTPAddr, cfg.InboundWorkers = config.Servers(srv.ClientURL()), 6000, "", devices
	var cut atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(&cfg.BaseURL)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cut.Load() {
			panic(http.ErrAbortHandler) // the connection is reset
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	address, err := url.Parse(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	behind := cfg
	behind.BaseURL = *address
	holder, _ := replicaOf(t, behind, "a")
	natstest.Eventually(t, "the first one posts", func() bool { return holder.consuming.consumer.Status().Holding })
	next, _ := replicaOf(t, cfg, "b")
	natstest.Eventually(t, "both share the polls", func() bool { return next.group.Live() && next.group.Trouble() == "" && next.polling.pool.Owned() > 0 })
	feedInbound(t, srv.Client(t), devices, 25*time.Millisecond)
	natstest.Eventually(t, "posts", func() bool { _, n := posted(t, api); return n > 20 })

	cut.Store(true)
	natstest.Eventually(t, "the other one posts", func() bool { return next.consuming.consumer.Status().Holding })
	_, before := posted(t, api)
	natstest.Eventually(t, "more posts", func() bool { _, n := posted(t, api); return n > before+40 })
}
