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
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"plaspy-bridge/auth"
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
// figure; what is to be compared is the CPU time a poll, as a ratio.
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

// cpu reports the process's CPU time per poll between the calls.
func cpu(b *testing.B) func() {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	b.ReportAllocs()
	b.ResetTimer()
	return func() {
		b.StopTimer()
		b.ReportMetric(float64(used()-start)/float64(time.Microsecond)/float64(b.N), "cpu-us/poll")
	}
}

// benchBare is the loop that an engineer would write who wants nothing but the
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
	done := cpu(b)
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
	policy := &ringPolicy{Policy: schedule.NewFixed(time.Hour), done: make(chan struct{}), warm: make(chan struct{})}
	pool := outbound.New(outbound.Options{
		Workers: benchWorkers, Refresh: time.Hour, IgnoreFields: []string{"inactiveSeconds"},
		BackoffInitial: time.Second, BackoffMax: time.Minute, Grace: 10 * time.Second, Trace: tracer,
	}, client, budget, plaspy.NewCircuit(plaspy.CircuitOptions{Log: log}), pub, pub.Subjects(), policy, log, nil)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { pool.Run(ctx) })
	<-policy.warm // every device was polled once, and is in the stream
	done := cpu(b)
	policy.left.Store(int64(b.N))
	pool.Own(nil) // wakes the dispatcher
	<-policy.done
	if err := pub.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	done()
	cancel()
	wg.Wait()
}

// ringPolicy polls every device once, then as many in turn as it is told, as
// fast as they come back.
type ringPolicy struct {
	schedule.Policy

	ids, out   []string
	polled     int
	left       atomic.Int64
	warm, done chan struct{}
}

func (p *ringPolicy) Add(_ time.Time, id string) { p.ids = append(p.ids, id) }

func (p *ringPolicy) Next(time.Time) (string, bool, time.Time) {
	if p.polled+len(p.out) >= benchDevices && p.left.Load() <= 0 || len(p.ids) == 0 {
		return "", false, time.Time{}
	}
	id := p.ids[0]
	p.ids = p.ids[1:]
	p.out = append(p.out, id)
	if p.polled >= benchDevices {
		p.left.Add(-1)
	}
	return id, true, time.Time{}
}

func (p *ringPolicy) PutBack(now time.Time, id string, _ time.Time) {
	p.Done(now, id, schedule.Observation{})
}

func (p *ringPolicy) Done(_ time.Time, id string, _ schedule.Observation) {
	p.ids = append(p.ids, id)
	p.out = p.out[:len(p.out)-1] // how many are out is what counts
	p.polled++
	switch {
	case p.polled == benchDevices:
		close(p.warm)
	case p.polled > benchDevices && p.left.Load() <= 0 && len(p.out) == 0:
		close(p.done)
	}
}
