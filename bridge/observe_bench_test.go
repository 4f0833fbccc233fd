package bridge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
)

// BenchmarkObserved runs a whole bridge at 1,000 polls a second, 5% of them
// changed, without observers, and with those of an operator: Prometheus
// that scrapes it every five seconds, three live views, traces. An operation is
// a poll. The CPU time is the whole process's: it has the simulated API and the
// NATS server in it, and the clients that scrape, read the views and take the traces.
func BenchmarkObserved(b *testing.B) {
	for _, row := range []struct {
		name          string
		scraped, seen bool
		traced        float64 // this part of the polls
	}{
		{name: "off"},
		{name: "metrics", scraped: true},
		{name: "view", seen: true},
		{name: "traces=5%", traced: 0.05},
		{name: "all", scraped: true, seen: true, traced: 0.05},
		{name: "traces=100%", traced: 1},
	} {
		b.Run(row.name, func(b *testing.B) {
			api, cfg := fleetOf(b, sim.Options{Devices: benchDevices, Seed: 1, Profile: fleet.Percent(5)})
			cfg.Workers, cfg.PollInterval = benchWorkers, time.Second
			if row.traced > 0 {
				sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
				defer sink.Close()
				b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.URL)
				b.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
				b.Setenv("OTEL_TRACES_SAMPLER_ARG", fmt.Sprint(row.traced))
			}
			bridge, stop := launch(b, cfg)
			defer stop()
			readyz(b, bridge, "ready", ready)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			await := func(polls int) {
				for api.Counts().Answers["lastLocation"][http.StatusOK] < int64(polls) {
					<-tick.C
				}
			}
			await(2 * benchDevices) // each is in the stream, and is polled at its time
			ctx, cancel := context.WithCancel(b.Context())
			var watchers sync.WaitGroup
			defer watchers.Wait()
			defer cancel()
			at := "http://" + bridge.HTTPAddr().String()
			if row.scraped {
				watchers.Go(func() { scrape(ctx, at+"/metrics") })
			}
			if row.seen {
				for range 3 {
					watchers.Go(func() { consume(ctx, at+"/view/events") })
				}
			}
			start := int(api.Counts().Answers["lastLocation"][http.StatusOK])
			began, done := time.Now(), cpuPerPoll(b)
			await(start + b.N)
			done()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "polls/s")
		})
	}
}

// scrape reads the metrics as Prometheus does.
func scrape(ctx context.Context, address string) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		consume(ctx, address)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// consume reads an answer to its end, or the context's.
func consume(ctx context.Context, address string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}
