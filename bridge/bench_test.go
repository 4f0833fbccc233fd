package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth"
	"plaspy-bridge/bridge/harness/cpu"
	"plaspy-bridge/bridge/outbound"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
	"plaspy-bridge/bridge/trace"
	"plaspy-bridge/publisher/natstest"
)

const (
	benchDevices = 1000
	benchWorkers = 16
)

// BenchmarkPoll compares the whole poll path, from the schedule's choice to the
// stream's acknowledgement, with a bare net/http loop against the same server
// over the same transport. The server runs in this process and is in every
// figure. Compare the CPU time a poll, as a ratio.
func BenchmarkPoll(b *testing.B) {
	b.Run("bare", func(b *testing.B) { benchBare(b, 0) })
	b.Run("bare+publish=100%", func(b *testing.B) { benchBare(b, 1) })
	for _, changed := range []float64{0, 5, 100} {
		b.Run(fmt.Sprintf("bridge/changed=%g%%", changed), func(b *testing.B) { benchBridge(b, changed, nil) })
	}
}

func benchServer(b *testing.B, changed float64) (*sim.Server, *url.URL) {
	b.Helper()
	s := sim.New(sim.Options{Devices: benchDevices, Seed: 1, Profile: fleet.Percent(changed)})
	l, err := s.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	base, err := url.Parse(l.URL)
	if err != nil {
		b.Fatal(err)
	}
	return s, base
}

// cpuPerPoll reports the process's CPU time per poll between the calls.
func cpuPerPoll(b *testing.B) func() {
	b.Helper()
	start := cpu.Used()
	b.ReportAllocs()
	b.ResetTimer()
	return func() {
		b.StopTimer()
		b.ReportMetric(float64(cpu.Used()-start)/float64(time.Microsecond)/float64(b.N), "cpu-us/poll")
	}
}

// benchBare is the simplest loop that reads the
// answers; with publish it also puts each into a stream, without waiting.
func benchBare(b *testing.B, publish int) {
	s, base := benchServer(b, 100)
	transport := plaspy.NewTransport(plaspy.Options{MaxConns: benchWorkers})
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	authorization := "Bearer " + bareToken(b, client, base.String())
	var js jetstream.JetStream
	if publish > 0 {
		srv := natstest.Start(b)
		js = srv.Publisher(b, "bench").JetStream()
	}
	ids := s.IDs()
	var next atomic.Int64
	done := cpuPerPoll(b)
	var wg sync.WaitGroup
	for range benchWorkers {
		wg.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= int64(b.N) {
					return
				}
				id := ids[n%benchDevices]
				body, err := bareGet(b.Context(), client, base.String()+"/api/devices/"+id+"/lastLocation", authorization)
				if err != nil {
					b.Error(err)
					return
				}
				if js != nil {
					if _, err := js.PublishAsync("bench.location."+id, body); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if js != nil {
		<-js.PublishAsyncComplete()
	}
	done()
}

func bareGet(ctx context.Context, c *http.Client, address, authorization string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", authorization)
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	return io.ReadAll(res.Body)
}

func bareToken(b *testing.B, c *http.Client, base string) string {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, base+"/api/Auth/Token", strings.NewReader(`{"userName":"sim","apiKey":"sim-key"}`))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct{ Token string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		b.Fatalf("no token: %v", err)
	}
	return answer.Token
}

func benchTokens(b *testing.B, base *url.URL, transport http.RoundTripper) *auth.Manager {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	o := plaspy.Options{BaseURL: base, Budget: plaspy.NewBudget(0, log, nil), Log: log, Transport: transport}
	cfg, err := plaspy.TokenConfig(o, "sim", func() (string, error) { return "sim-key", nil })
	if err != nil {
		b.Fatal(err)
	}
	return auth.New(cfg, log, nil)
}

func benchBridge(b *testing.B, changed float64, tracer *trace.Tracer) {
	_, base := benchServer(b, changed)
	transport := plaspy.NewTransport(plaspy.Options{MaxConns: benchWorkers})
	defer transport.CloseIdleConnections()
	log := slog.New(slog.DiscardHandler)
	budget := plaspy.NewBudget(0, log, nil)
	client, err := plaspy.New(plaspy.Options{
		BaseURL: base, Budget: budget, Log: log, Transport: transport, Tokens: benchTokens(b, base, transport), MaxConns: benchWorkers,
		Trace: tracer,
	})
	if err != nil {
		b.Fatal(err)
	}
	pub := natstest.Start(b).Publisher(b, "plaspy")
	api := &countedAPI{API: client, wake: make(chan struct{}, 1)}
	api.target.Store(2 * benchDevices)
	pool := outbound.New(outbound.Options{
		Workers: benchWorkers, Refresh: time.Hour, IgnoreFields: []string{"inactiveSeconds"},
		BackoffInitial: time.Second, BackoffMax: time.Minute, Grace: 10 * time.Second, Trace: tracer,
	}, outbound.Parts{
		API: api, Devices: client, Gaps: client, Budget: budget, Circuit: plaspy.NewCircuit(plaspy.CircuitOptions{Log: log}),
		Events: pub, State: pub.Reader(), Connected: pub.Connected, Schedule: schedule.NewFixed(time.Millisecond), Subjects: pub.Subjects(), Log: log,
	})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { pool.Run(ctx) })
	<-api.wake // every device was polled, and is in the stream
	done := cpuPerPoll(b)
	api.await(int64(b.N))
	if err := pub.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	done()
	cancel()
	wg.Wait()
}

// countedAPI counts the polls that were answered.
type countedAPI struct {
	outbound.API

	polls  atomic.Int64
	target atomic.Int64  // after so many polls ...
	wake   chan struct{} // ... this is sent on
}

func (a *countedAPI) LastLocation(ctx context.Context, id string, buf []byte) (plaspy.LastLocation, error) {
	l, err := a.API.LastLocation(ctx, id, buf)
	if a.polls.Add(1) == a.target.Load() {
		a.wake <- struct{}{}
	}
	return l, err
}

// await waits for n more polls.
func (a *countedAPI) await(n int64) {
	a.target.Store(a.polls.Load() + n)
	<-a.wake
}
